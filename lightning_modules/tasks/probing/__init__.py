"""What a layer knows: linear probes, word senses."""
