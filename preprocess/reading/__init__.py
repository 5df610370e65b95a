"""Reading documents from raw files: listing, work units, formats, compression and encodings."""
