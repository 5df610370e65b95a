"""Local and remote files: storage, durable writes, local copies, manifests and fingerprints."""
