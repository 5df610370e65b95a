"""The processes of a training: how rows are divided, and how gradients are summed."""
