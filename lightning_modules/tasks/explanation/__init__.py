"""Which words an output depends on."""
