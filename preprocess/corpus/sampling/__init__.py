"""A bounded, seeded sample of raw text: what it contains, and what it costs to prepare all of it."""
