"""`biloom classify`."""
