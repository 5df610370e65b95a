"""Training with Lightning: module, data module, optimisers, callbacks and checkpoints."""
