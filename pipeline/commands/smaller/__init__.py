"""`biloom shrink`: a smaller model folder from a model folder."""
