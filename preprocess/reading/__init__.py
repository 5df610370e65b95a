"""Raw files to documents: listing, units of work, formats, compression, encodings and records."""
