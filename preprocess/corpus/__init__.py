"""Documents to token shards: first pass, deduplication, last pass and rejected documents."""
