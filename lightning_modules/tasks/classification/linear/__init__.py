"""Linear models: heads on pooled vectors, and bags of words beside them."""
