"""Files anywhere: storage by path or URL, durable writes, local copies, manifests and fingerprints."""
