"""The queue of texts: batches, cancelled texts, errors."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import numpy as np
import pytest

from lightning_modules.serving.queue import BatchQueue, QueuedText
from lightning_modules.serving.source import Choice, Floats
from lightning_modules.vectors.selection import Selection
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.tokenizers.base import Token

ALL, TOP = Choice(Selection("all")), Choice(Selection("top"))


def text(name: str, tokens: int) -> Tokenised:
    return Tokenised(name, (Token(3, "x", 0, 1),) * tokens, ())


class Computing:
    """Records batches; the first one waits until `go` is set."""

    def __init__(self, fails: str = "") -> None:
        self.go, self.begun, self.fails = threading.Event(), threading.Event(), fails
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[Tokenised], choice: Choice, tokens: int) -> list[Floats]:
        self.batches.append([one.text for one in texts])
        self.begun.set()
        assert self.go.wait(60)
        if any(one.text == self.fails for one in texts):
            raise RuntimeError(self.fails)
        return [np.full((1, 1, 1), len(one.tokens), np.float32) for one in texts]


@contextmanager
def busy(
    compute: Computing, on_batch: Callable[[int, int], None] = lambda *_: None
) -> Iterator[BatchQueue]:
    """A queue of 10 tokens a batch whose thread computes a first text."""
    queue = BatchQueue(compute, 10, on_batch)
    try:
        queue.add([QueuedText(text("first", 1), ALL)])
        assert compute.begun.wait(60)
        yield queue
    finally:
        compute.go.set()
        queue.close()


def test_texts_of_one_selection_are_computed_together_within_the_tokens_of_a_batch() -> None:
    compute = Computing()
    counted: list[tuple[int, int]] = []
    with busy(compute, lambda *one: counted.append(one)) as queue:
        added = [
            QueuedText(text("a", 4), ALL),
            QueuedText(text("b", 4), TOP),
            QueuedText(text("c", 6), ALL),
            QueuedText(text("d", 50), ALL),
            QueuedText(text("e", 0), TOP),
        ]
        queue.add(added)
        assert len(queue) == 5
    assert compute.batches == [["first"], ["a", "c"], ["b", "e"], ["d"]]
    assert counted == [(1, 1), (2, 10), (2, 5), (1, 50)]
    assert [one.vectors.result().item() for one in added] == [4, 4, 6, 50, 0]
    assert not queue.is_running


def test_cancelled_texts_are_not_computed() -> None:
    compute = Computing()
    with busy(compute) as queue:
        gone, stays = QueuedText(text("gone", 1), ALL), QueuedText(text("stays", 1), ALL)
        queue.add([gone, stays])
        assert gone.vectors.cancel()
    assert compute.batches == [["first"], ["stays"]]
    with pytest.raises(CancelledError):
        gone.vectors.result()


def test_a_text_that_fails_does_not_fail_the_others_of_its_batch() -> None:
    compute = Computing(fails="bad")
    with busy(compute) as queue:
        texts = [QueuedText(text(name, 1), ALL) for name in ("good", "bad", "last")]
        queue.add(texts)
    assert [one.vectors.result().item() for one in (texts[0], texts[2])] == [1, 1]
    with pytest.raises(RuntimeError, match="bad"):
        texts[1].vectors.result()
