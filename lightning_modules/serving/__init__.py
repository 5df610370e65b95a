"""Vectors of texts that arrive one by one: a model or a cache, and the queue of their computation."""
