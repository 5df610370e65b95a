"""A trained model in use: texts to vectors."""
