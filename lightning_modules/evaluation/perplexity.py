"""Perplexity of held-out text: full vocabulary, every token once, state carried along the stream."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import Evaluation, HeldOut, Sums
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.window import Types, on_device
from lightning_modules.nn.window_maker import WindowMaker
from preprocess.shards.stream import Int64Ids
from preprocess.tokenizers.base import UNKNOWN

FIRST_BAND = 100
"""Ranks of the first frequency band; each further one ends at ten times the rank."""


def evaluate(
    network: BiLMNetwork,
    windows: Iterable[tuple[Int64Ids, Int64Ids]],
    text: HeldOut,
    ranks: npt.NDArray[np.int64] | None = None,
    document_starts: tuple[int, int] | None = None,
    encode: Callable[[Int64Ids], Types] | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Evaluation:
    """Run ``network`` over ``windows`` of (2, time, rows) ids and targets, from zero state on.

    A target that cannot be predicted (from ``network.output_vocabulary`` on) counts as unknown.

    Args:
        network: in any mode; it is left in the mode it was in. A forward one reads [0] alone.
        windows: every position of the split once, or this process's share of them; padding has a
            target below 0.
        text: the sizes of the whole split.
        ranks: (output vocabulary,) rank of each id by its count in training, from 0; none: no bands.
        document_starts: the input that begins a document, forward and backward, before which the
            state is set to zero; none: it is carried on.
        encode: (directions, time, rows) ids -> what the input encoder reads instead; none: ids.
        reduce: sums of this process, float64 -> those of all processes; called once.
    """
    device = next(network.parameters()).device
    tally = _Tally(network.directions, network.output_vocabulary, ranks, device)
    head, by_rank = network.head, np.arange(network.output_vocabulary)
    if isinstance(head, AdaptiveSoftmax):
        by_rank = head.ranks.cpu().numpy()
    make = WindowMaker(by_rank, head.cutoffs, encode, document_starts)
    was_training = network.training
    network.eval()
    state = None
    with torch.inference_mode():
        for ids, goals in windows:
            ids, goals = ids[: network.directions], goals[: network.directions]
            window = on_device(make(ids, goals), device)
            state = network.zero_state(ids.shape[2]) if state is None else state
            nll, state = network.nll(window, state)  # (directions, time, rows)
            tally.add(nll, window.targets)
    network.train(was_training)
    return tally.evaluation(text, reduce)


class _Tally:
    """Sums by direction and frequency band, on the device: nothing waits for it before the end."""

    def __init__(
        self,
        directions: int,
        vocabulary: int,
        ranks: npt.NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        self._given = ranks is not None
        ranks = np.zeros(vocabulary, np.int64) if ranks is None else ranks
        ends = [FIRST_BAND]
        while ends[-1] < vocabulary:
            ends.append(10 * ends[-1])
        ends[-1] = vocabulary
        self._ranges = list(zip([1, *(end + 1 for end in ends)], ends, strict=False))
        of_id = np.searchsorted(ends, ranks, "right")  # (vocabulary,)
        # The unknown word is summed apart, so that it is counted, and joins its band at the end.
        self._unknown_band = int(of_id[UNKNOWN])
        of_id[UNKNOWN] = len(ends)
        self._band = torch.from_numpy(of_id).to(device)
        self._each = torch.arange(len(ends) + 1, device=device)
        # [0] targets, [1] nats
        self._sums = torch.zeros(2, directions, len(ends) + 1, dtype=torch.float64, device=device)

    def add(self, nll: Tensor, targets: Tensor) -> None:
        """Both (directions, time, rows); a target below 0 does not count."""
        band = self._band[targets.clamp(min=0)].where(targets >= 0, -1)
        hit = band[..., None] == self._each  # (directions, time, rows, bands + 1)
        self._sums[0] += hit.sum((1, 2))
        self._sums[1] += nll.double()[..., None].where(hit, 0.0).sum((1, 2))

    def evaluation(self, text: HeldOut, reduce: Callable[[Tensor], Tensor]) -> Evaluation:
        sums = reduce(self._sums).cpu()  # (2, directions, bands + 1)
        unknown = int(sums[0, 0, -1])
        sums[..., self._unknown_band] += sums[..., -1]
        sums = sums[..., :-1]
        total = _sums(sums.sum(-1))
        assert set(total.tokens) == {text.tokens}, "each token is counted once"
        bands = {}
        if self._given:
            bands = {one: _sums(sums[..., n]) for n, one in enumerate(self._ranges)}
        return Evaluation(text, total, unknown, bands)


def _sums(sums: Tensor) -> Sums:
    tokens, nats = sums.tolist()
    return Sums(tuple(map(int, tokens)), tuple(nats))
