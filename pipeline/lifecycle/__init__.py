"""Decide whether a stage is done, resumes or is refused, and run it; registry; locks."""
