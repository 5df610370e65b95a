"""What the train stage builds around Lightning: inputs, Trainer, devices and loggers."""
