"""Detection of what a file contains, and the errors for what cannot be read."""
