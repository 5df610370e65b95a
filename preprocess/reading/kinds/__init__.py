"""Detection of what a file contains, and errors for files that are not text."""
