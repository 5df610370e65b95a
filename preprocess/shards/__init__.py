"""Token shards on disk, the stream over them, and the windows of training and evaluation."""
