"""Processing of one text: cleaning, filters, scripts, MinHash keys and its split."""
