"""Search for files by a path, a glob or a URL, on local disks, in stores, on web servers and in archives."""
