"""The stages, one file each, and the run of all stages in order."""
