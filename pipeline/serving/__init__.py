"""The HTTP server of vectors: requests, answers, metrics, and the process that serves them."""
