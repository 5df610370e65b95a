"""Pages, tables and model cards that describe finished stages."""
