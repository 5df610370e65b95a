"""Requests of vectors: admission, limits, the queue, and clients that go away."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.requests import Request

from lightning_modules.serving.queue import BatchQueue, QueuedText
from lightning_modules.serving.source import (
    AbsentTextError,
    ChoiceError,
    Floats,
    Limit,
    LongTextError,
    Prepared,
    ServedVectors,
)
from lightning_modules.vectors.selection import Pooling, Selection, SelectionError, Text
from pipeline.serving.errors import ClientGoneError, RequestError, overloaded
from pipeline.serving.limits import ANSWER_VALUES, WAITING_VALUES, Limits
from pipeline.serving.metrics import Metrics
from preprocess.errors import UserError
from preprocess.vectors.codec import CacheError

T = TypeVar("T")


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
        texts: the texts.
        unit: "token", "word" or "sentence"; None means "token", or the unit of the cache.
        layers, pooling: as in `ServedVectors.choose`.
        truncate: whether to cut long texts.
    """

    texts: Sequence[Text]
    unit: str | None
    layers: object
    pooling: Pooling | None
    truncate: bool


class Found(NamedTuple):
    """The vectors of a request.

    Attributes:
        vectors: of each text, (layers, units, dim).
        tokens: tokens that were computed.
    """

    vectors: list[Floats]
    tokens: int


class VectorService:
    """Answers requests with vectors.

    Args:
        source: where vectors come from.
        limits: limits of requests.

    Attributes:
        source, limits: the arguments.
        metrics: the counts.
    """

    def __init__(self, source: ServedVectors, limits: Limits) -> None:
        self.source, self.limits = source, limits
        self._requests = self._values = 0
        self.metrics = Metrics(lambda: len(self._queue), lambda: self._requests)
        self._queue = BatchQueue(source.compute, limits.max_batch_tokens, self.metrics.on_batch)
        # One thread: tokenizers hold Python's lock for most of their time.
        self._readers = ThreadPoolExecutor(1, "read-texts")

    @property
    def is_healthy(self) -> bool:
        """Whether the thread that computes vectors runs."""
        return self._queue.is_running

    def close(self) -> None:
        """Finish what waits."""
        self._readers.shutdown()
        self._queue.close()

    @contextmanager
    def admitted(self, request: Request) -> Iterator[None]:
        """Count a request, and the values of its answer, as in progress until the end of the block.

        Raises:
            RequestError: there are too many requests.
        """
        if self._requests >= self.limits.max_concurrent_requests:
            raise overloaded(
                f"{self._requests:,} requests are in progress, which is the limit; try again later"
            )
        self._requests += 1
        request.state.values = 0
        try:
            yield
        finally:
            self._requests -= 1
            self._values -= request.state.values

    async def vectors(self, request: Request, asked: Asked) -> Found:
        """Return the vectors of a request that is `admitted` and whose body has been read.

        Raises:
            RequestError: the request cannot be answered.
            ClientGoneError: the client has closed the connection. Texts that wait are not computed.
        """
        if len(asked.texts) > self.limits.max_client_batch_size:
            raise RequestError(
                f"batch size {len(asked.texts):,} > maximum allowed batch size "
                f"{self.limits.max_client_batch_size:,}",
                "Validation",
            )
        unit = asked.unit or (self.source.cache.unit if self.source.cache else "token")
        try:
            selection = self.source.choose(asked.layers, unit, asked.pooling)
        except (SelectionError, ChoiceError) as error:
            raise RequestError(str(error), "Validation", 422) from None
        prepared = await self._prepared(request, asked, selection)
        self._reserve(request, self._needed(prepared, selection))
        return await self._computed(request, prepared, selection)

    async def tokenised(self, request: Request, texts: Sequence[Text]) -> list[Prepared]:
        """Return the tokens of texts.

        Raises:
            RequestError, ClientGoneError: as `vectors`.
        """
        asked = Asked(texts, "token", None, None, False)
        return await self._prepared(request, asked, Selection())

    async def _prepared(
        self, request: Request, asked: Asked, selection: Selection
    ) -> list[Prepared]:
        limit = Limit(self.limits.max_input_tokens, asked.truncate, ANSWER_VALUES)
        read = partial(self.source.prepare, asked.texts, selection, limit)
        loop = asyncio.get_running_loop()
        try:
            return await unless_gone(request, loop.run_in_executor(self._readers, read))
        except AbsentTextError as error:
            raise RequestError(str(error), "Validation", 404) from None
        except LongTextError as error:
            raise RequestError(str(error), "Validation") from None
        except CacheError as error:
            raise RequestError(str(error), "Backend") from error
        except UserError as error:
            raise RequestError(str(error), "Tokenizer") from None

    def _needed(self, prepared: Sequence[Prepared], selection: Selection) -> int:
        """Return the number of values of an answer."""
        for number, one in enumerate(prepared):
            if not one.units:
                raise RequestError(f"`inputs[{number}]` has no tokens", "Empty")
        values = sum(self.source.values(selection, one.units) for one in prepared)
        if values > ANSWER_VALUES:
            raise RequestError(
                f"the answer has {values:,} numbers, but at most {ANSWER_VALUES:,} are allowed; send "
                "fewer or shorter texts, or ask for fewer layers",
                "Validation",
            )
        return values

    def _reserve(self, request: Request, values: int) -> None:
        """Count the values of an answer, to bound the memory of all answers."""
        if self._values + values > WAITING_VALUES:
            raise overloaded("too many vectors are in progress; try again later")
        self._values += values
        request.state.values = values

    async def _computed(
        self, request: Request, prepared: Sequence[Prepared], selection: Selection
    ) -> Found:
        queued = [QueuedText(one.text, selection) for one in prepared if one.text is not None]
        self.metrics.texts.labels("model").inc(len(queued))
        self.metrics.texts.labels("cache").inc(len(prepared) - len(queued))
        self._queue.add(queued)
        results = asyncio.gather(*(asyncio.wrap_future(one.vectors) for one in queued))
        try:
            computed = iter(await unless_gone(request, results))
        except (UserError, MemoryError, RuntimeError) as error:
            raise RequestError(f"inference failed: {error}", "Backend") from error
        vectors = [next(computed) if one.vectors is None else one.vectors for one in prepared]
        return Found(vectors, sum(one.tokens for one in prepared))


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return the result of ``work``, or cancel it if the client closes the connection.

    Raises:
        ClientGoneError: the client has closed the connection.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        # A result that nobody takes would be logged as lost.
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
