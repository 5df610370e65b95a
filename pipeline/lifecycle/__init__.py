"""Whether a stage is done, can resume or must be refused; the registry of stages; locks."""
