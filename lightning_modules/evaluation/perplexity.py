"""Evaluation of a network on held-out text, over the full vocabulary."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import Evaluation, HeldOut, LossSums
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.window import Types, Window, on_device
from lightning_modules.nn.window_maker import WindowMaker, document_resets
from preprocess.shards.held_out_windows import HeldOutIds
from preprocess.shards.stream import Int64Ids
from preprocess.tokenizers.base import UNKNOWN

FIRST_BAND = 100
"""Last rank of the first frequency band; each further band ends at ten times the rank."""


def evaluate(
    network: BiLMNetwork,
    windows: Iterable[HeldOutIds],
    text: HeldOut,
    ranks: npt.NDArray[np.int64] | None = None,
    document_starts: tuple[int, int] | None = None,
    encode: Callable[[Int64Ids], Types] | None = None,
) -> Evaluation:
    """Compute the loss of a network on every token of a split.

    The state starts at zero and is carried from window to window. To score each document from the
    zero state, as `scoring.score_texts` does, use windows of whole documents and ``document_starts``.
    A target that the network cannot predict (an id of at least ``network.output_vocabulary``) counts
    as the unknown token. Dropout and sampling are off; the network's mode is ignored and not changed.

    Args:
        network: the network. A forward language model reads the first stream only.
        windows: consecutive windows, as of `HeldOutWindows`. They hold each position of the split once.
        text: sizes of the whole split.
        ranks: rank of each id by its count in the training split, counted from 0, int64 (output
            vocabulary,). None means no frequency bands.
        document_starts: ids that begin a document, forward and backward. The state is set to zero
            before them. None means that the state is carried over document boundaries.
        encode: converts ids (directions, time, rows) to what the input encoder reads. None means
            that it reads ids.
    """
    device = next(network.parameters()).device
    tally = LossTally(network.directions, network.output_vocabulary, ranks, device)
    head, by_rank = network.head, np.arange(network.output_vocabulary)
    if isinstance(head, AdaptiveSoftmax):
        by_rank = head.ranks.cpu().numpy()
    make = WindowMaker(by_rank, head.cutoffs, encode)
    state = None
    with torch.inference_mode():
        for read in windows:
            window = on_device(window_of(read, make, network.directions, document_starts), device)
            state = network.zero_state(read.ids.shape[2]) if state is None else state
            nll, state = network.nll(window, state)  # (directions, time, rows)
            tally.add(nll, window.targets)
    result = tally.result(text)
    assert result.is_complete, "each token is counted once"
    return result


def window_of(
    read: HeldOutIds, make: WindowMaker, directions: int, document_starts: tuple[int, int] | None
) -> Window:
    """Return the window of a network from one of held-out text, on the CPU.

    Args:
        read: ids and targets of both directions.
        make: converts ids and targets to the network's window.
        directions: directions of the network.
        document_starts: as of `evaluate`.
    """
    ids, targets = read.ids[:directions], read.targets[:directions]
    resets = None if read.resets is None else read.resets[:directions]
    if document_starts:
        starts = document_resets(ids, document_starts)
        resets = starts if resets is None else starts | resets
    return make(ids, targets, resets)


class LossTally:
    """Sums of losses by direction and frequency band.

    They are kept on the device, so that the CPU does not wait for it before `result`. The sums of blocks
    of rows are kept apart and added in their order, so that the result is the same to the bit on any
    number of ranks, if each block is computed by one of them.

    Args:
        directions: 2, or 1 for a forward language model.
        vocabulary: number of ids that can be predicted.
        ranks: rank of each id by its count in the training split, counted from 0, int64
            (vocabulary,). None means no frequency bands.
        device: device of the losses.
        blocks: number of blocks of rows, of all ranks.
    """

    def __init__(
        self,
        directions: int,
        vocabulary: int,
        ranks: npt.NDArray[np.int64] | None,
        device: torch.device,
        blocks: int = 1,
    ) -> None:
        self._has_ranks = ranks is not None
        ranks = np.zeros(vocabulary, np.int64) if ranks is None else ranks
        ends = [FIRST_BAND]
        while ends[-1] < vocabulary:
            ends.append(10 * ends[-1])
        ends[-1] = vocabulary
        self._ranges = list(zip([1, *(end + 1 for end in ends)], ends, strict=False))
        of_id = np.searchsorted(ends, ranks, "right")  # (vocabulary,)
        # The unknown token has an extra band, so that it is counted; `evaluation` adds it to its own.
        self._unknown_band = int(of_id[UNKNOWN])
        of_id[UNKNOWN] = len(ends)
        self._band = torch.from_numpy(of_id).to(device)
        self._each = torch.arange(len(ends) + 1, device=device)
        # [:, 0] targets, [:, 1] nats
        self._sums = torch.zeros(
            blocks, 2, directions, len(ends) + 1, dtype=torch.float64, device=device
        )

    def add(self, nll: Tensor, targets: Tensor, block: int = 0) -> None:
        """Add the losses of targets.

        Args:
            nll: -log p of each target in nats, as of `BiLMNetwork.nll`, (directions, time, rows).
            targets: ids below ``vocabulary``, as of `Window.targets`, (directions, time, rows).
                Targets below 0 are ignored.
            block: number of the block that the rows are of. Any, if all targets are ignored.
        """
        band = self._band[targets.clamp(min=0)].where(targets >= 0, -1)
        hit = band[..., None] == self._each  # (directions, time, rows, bands + 1)
        self._sums[block, 0] += hit.sum((1, 2))
        self._sums[block, 1] += nll.double()[..., None].where(hit, 0.0).sum((1, 2))

    def result(
        self, text: HeldOut, reduce: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> Evaluation:
        """Return the evaluation of the targets added so far, which may be a part of the split.

        Args:
            text: sizes of the whole split.
            reduce: sums a float64 tensor over all ranks; called once. By default there is one rank.
        """
        # Adding the zeros of other ranks is exact, so only the sum over blocks rounds.
        sums = reduce(self._sums).cpu().sum(0)  # (2, directions, bands + 1)
        unknown = int(sums[0, 0, -1])
        sums[..., self._unknown_band] += sums[..., -1]
        sums = sums[..., :-1]
        total = _sums(sums.sum(-1))
        bands = {}
        if self._has_ranks:
            bands = {band: _sums(sums[..., n]) for n, band in enumerate(self._ranges)}
        return Evaluation(text, total, unknown, bands)


def _sums(sums: Tensor) -> LossSums:
    tokens, nats = sums.tolist()
    return LossSums(tuple(map(int, tokens)), tuple(nats))
