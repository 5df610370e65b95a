"""The FLOP/s that a device reaches in matrix multiplication."""

import torch

from lightning_modules.matmul_peak import matmul_peak


def test_the_peak_is_plausible_and_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    peak = matmul_peak(torch.device("cpu"), torch.float32)

    assert 1e8 < peak < 1e16
    assert torch.equal(torch.random.get_rng_state(), state), "the random state has changed"
