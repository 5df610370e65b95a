"""Tables of text, such as CSV and TSV: their dialect and their records."""
