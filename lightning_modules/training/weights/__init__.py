"""What a training starts from, and the best weights that it has reached."""
