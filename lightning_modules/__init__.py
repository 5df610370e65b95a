"""The bidirectional language model in PyTorch and its training with Lightning."""
