"""`biloom explain`."""
