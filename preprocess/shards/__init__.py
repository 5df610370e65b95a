"""Token shards on disk, and the training stream over them."""
