"""Fused kernels for GPUs, each as one custom operation of torch."""
