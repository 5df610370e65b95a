"""A queue of texts from many requests, which one thread computes in batches of bounded size."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from lightning_modules.serving.source import Choice, Floats
from preprocess.tokenizers.aligned_text import Tokenised

Compute = Callable[[Sequence[Tokenised], Choice, int], list[Floats]]
"""`ServedVectors.compute`."""


@dataclass(frozen=True)
class QueuedText:
    """A text whose vectors are to be computed.

    Attributes:
        text: the text.
        choice: which vectors.
        vectors: the result. If it is cancelled before its batch begins, nothing is computed.
    """

    text: Tokenised
    choice: Choice
    vectors: "Future[Floats]" = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return max(1, len(self.text.tokens))


class BatchQueue:
    """Computes texts in the order of their arrival. Texts of one batch have the same `Choice`.

    A batch begins as soon as the former one is done, with the texts that have arrived by then.

    Args:
        compute: computes a batch.
        batch_tokens: tokens of a batch. A longer text is a batch by itself.
        on_batch: called with the number of texts and tokens of each batch before it is computed.
    """

    def __init__(
        self, compute: Compute, batch_tokens: int, on_batch: Callable[[int, int], None]
    ) -> None:
        self._compute, self._batch_tokens, self._on_batch = compute, batch_tokens, on_batch
        self._waiting: deque[QueuedText] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of texts that wait."""
        return len(self._waiting)

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def add(self, texts: Sequence[QueuedText]) -> None:
        """Append texts to the queue."""
        with self._changed:
            assert not self._closed
            self._waiting.extend(texts)
            self._changed.notify()

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch = self._next_batch()
            if batch:
                self._compute_batch(batch)

    def _next_batch(self) -> list[QueuedText]:
        """Take the texts of the next batch; texts that were cancelled are dropped."""
        batch: list[QueuedText] = []
        others: deque[QueuedText] = deque()
        tokens = 0
        while self._waiting:
            one = self._waiting.popleft()
            if batch and one.choice != batch[0].choice:
                others.append(one)
            elif batch and tokens + one.tokens > self._batch_tokens:
                others.append(one)
                break
            elif one.vectors.set_running_or_notify_cancel():
                batch.append(one)
                tokens += one.tokens
        self._waiting.extendleft(reversed(others))
        return batch

    def _compute_batch(self, batch: Sequence[QueuedText]) -> None:
        self._on_batch(len(batch), sum(one.tokens for one in batch))
        texts = [one.text for one in batch]
        try:
            found = self._compute(texts, batch[0].choice, self._batch_tokens)
        # The thread must go on: the error is the answer to the request.
        except Exception as error:
            if len(batch) == 1:
                batch[0].vectors.set_exception(error)
                return
            # The requests of the other texts must not fail.
            for one in batch:
                self._compute_batch([one])
            return
        for one, vectors in zip(batch, found, strict=True):
            one.vectors.set_result(vectors)
