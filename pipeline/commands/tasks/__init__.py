"""Commands that use vectors for a task."""
