"""Input encoders: token ids or characters to vectors."""
