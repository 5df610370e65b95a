"""The passes of prepare, which turn raw documents into token shards, and deduplication."""
