"""The FLOP/s that a device reaches in matrix multiplication, the denominator of the MFU."""

import time

import torch

PEAK_SECONDS = 0.15
PEAK_SIZE = {"cpu": 768, "cuda": 8192}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of large square matrix products for 0.15 s and return the best.

    The random state of torch is not touched.

    Args:
        device: a CPU or CUDA device.
        dtype: type of the matrices.
    """
    size = PEAK_SIZE[device.type]
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=device, dtype=dtype) for _ in "ab")
    product = a @ b
    _wait(device)
    best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(a, b, out=product)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
