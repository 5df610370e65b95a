"""Files that are not plain files of a local disk, as seekable streams."""
