"""Tables with labels: CSV, TSV and Parquet."""
