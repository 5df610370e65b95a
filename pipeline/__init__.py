"""The command line, the stages, and all code that uses Beam."""
