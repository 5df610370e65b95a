"""Near-duplicates: which documents are compared, and which are dropped."""
