"""The recurrent stack, its layers of each kind, and their compiled cells."""
