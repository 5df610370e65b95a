"""How many FLOP/s a device reaches in matrix multiplications: the denominator of MFU."""

import time

import torch

PEAK_SECONDS = 0.15
PEAK_SIZE = {"cpu": 768, "cuda": 8192}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large square matmuls on ``device``, the best of those that fit into 0.15 s."""
    size = PEAK_SIZE[device.type]
    draw = torch.Generator(device).manual_seed(0)  # Training's own draws must not move.
    a, b = (torch.randn(size, size, generator=draw, device=device, dtype=dtype) for _ in "ab")
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
