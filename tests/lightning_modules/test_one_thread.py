"""A block that computes with one thread."""

from contextlib import suppress

import torch

from lightning_modules.one_thread import one_thread


def test_the_number_of_threads_is_restored_also_after_an_error() -> None:
    given = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suppress(ValueError), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(given)
