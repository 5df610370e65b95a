"""Words with tags: named entities and other spans."""
