"""Model folders and ELMo archives: reading and writing trained weights."""
