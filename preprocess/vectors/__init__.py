"""The vector cache: its files, its index, its reader and nearest neighbours."""
