"""Requests of vectors: admission, limits, the queue, and clients that go away."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.requests import Request

from lightning_modules.serving.queue import BatchQueue, QueuedText
from lightning_modules.serving.source import (
    AbsentTextError,
    Choice,
    ChoiceError,
    Floats,
    Prepared,
    ServedVectors,
)
from lightning_modules.serving.text_limit import Limit, LongTextError
from lightning_modules.vectors.selection import Pooling, Selection, SelectionError, Text
from pipeline.serving.errors import ClientGoneError, RequestError, overloaded
from pipeline.serving.limits import (
    ANSWER_VALUES,
    PART_CHARACTERS,
    TOKEN_VALUES,
    WAITING,
    Limits,
)
from pipeline.serving.metrics import Metrics
from preprocess.errors import UserError
from preprocess.vectors.codec import CacheError

T = TypeVar("T")
Read = Callable[[Sequence[Text], Limit, int], list[Prepared]]
"""Reads some texts of a request within a limit; the last argument is the number of the first one."""


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
        self._requests = 0
        self._held: Counter[str] = Counter()
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
        """Count a request, and what it reserves, as in progress until the end of the block.

        Raises:
            RequestError: there are too many requests.
        """
        if self._requests >= self.limits.max_concurrent_requests:
            raise overloaded(
                f"{self._requests:,} requests are in progress, which is the limit; try again later"
            )
        self._requests += 1
        request.state.held = Counter()
        try:
            yield
        finally:
            self._requests -= 1
            self._held -= request.state.held

    def reserve(self, request: Request, kind: str, amount: int) -> None:
        """Count what a request that is `admitted` holds, to bound the memory of all requests.

        Args:
            request: the request.
            kind: "bytes", "tokens" or "values".
            amount: how many.

        Raises:
            RequestError: the requests in progress would hold too much. A single one never does.
        """
        if (
            self._held[kind] > request.state.held[kind]
            and self._held[kind] + amount > WAITING[kind]
        ):
            raise overloaded(f"the requests in progress have too many {kind}; try again later")
        self._held[kind] += amount
        request.state.held[kind] += amount

    async def vectors(self, request: Request, asked: Asked) -> Found:
        """Return the vectors of a request that is `admitted` and whose body has been read.

        Raises:
            RequestError: the request cannot be answered.
            ClientGoneError: the client has closed the connection. Texts that wait are not computed.
        """
        try:
            choice = self.source.choose(asked.layers, asked.unit, asked.pooling)
        except (SelectionError, ChoiceError) as error:
            raise RequestError(str(error), "Validation", 422) from None

        def read(texts: Sequence[Text], limit: Limit, first: int) -> list[Prepared]:
            return self.source.prepare(texts, choice, limit, first)

        prepared = await self._prepared(
            request, asked, read, lambda one: self.source.values(choice, one.units)
        )
        return await self._computed(request, prepared, choice)

    async def tokenised(self, request: Request, texts: Sequence[Text]) -> list[Prepared]:
        """Return the tokens of texts.

        Raises:
            RequestError, ClientGoneError: as `vectors`.
        """
        asked = Asked(texts, "token", None, None, False)

        def read(texts: Sequence[Text], limit: Limit, first: int) -> list[Prepared]:
            return self.source.read(texts, Selection(), limit, range(first, first + len(texts)))

        return await self._prepared(request, asked, read, lambda one: TOKEN_VALUES * one.tokens)

    async def _prepared(
        self, request: Request, asked: Asked, read: Read, values_of: Callable[[Prepared], int]
    ) -> list[Prepared]:
        """Read the texts of a request, and reserve their tokens and the values of the answer."""
        if len(asked.texts) > self.limits.max_client_batch_size:
            raise RequestError(
                f"batch size {len(asked.texts):,} > maximum allowed batch size "
                f"{self.limits.max_client_batch_size:,}",
                "Validation",
            )
        prepared: list[Prepared] = []
        left = ANSWER_VALUES
        for part in parts(asked.texts):
            limit = Limit(self.limits.max_input_tokens, asked.truncate, left)
            found = await self._read(request, partial(read, part, limit, len(prepared)))
            for number, one in enumerate(found, len(prepared)):
                if not one.units:
                    raise RequestError(f"`inputs[{number}]` has no tokens", "Empty")
            values = sum(map(values_of, found))
            left -= values
            if left < 0:
                fewer = "" if self.source.cache else ", or ask for fewer layers"
                raise RequestError(
                    f"the answer has more than {ANSWER_VALUES:,} numbers; send fewer or shorter texts{fewer}",
                    "Validation",
                )
            self.reserve(request, "tokens", sum(one.tokens for one in found))
            self.reserve(request, "values", values)
            prepared += found
        return prepared

    async def _read(self, request: Request, read: Callable[[], T]) -> T:
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

    async def _computed(
        self, request: Request, prepared: Sequence[Prepared], choice: Choice
    ) -> Found:
        queued = [QueuedText(one.text, choice) for one in prepared if one.text is not None]
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


def parts(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Yield parts of at most `PART_CHARACTERS` characters, or of one text."""
    first = size = 0
    for number, text in enumerate(texts):
        characters = len(text) if isinstance(text, str) else sum(map(len, text))
        if number > first and size + characters > PART_CHARACTERS:
            yield texts[first:number]
            first, size = number, 0
        size += characters
    yield texts[first:]


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
