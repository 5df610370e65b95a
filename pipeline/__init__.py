"""The command line, the stages, and everything that knows Beam."""
