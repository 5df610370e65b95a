"""What a reader hands on: a few megabytes of documents, and what was none with its reason."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

EXCERPT_CHARACTERS = 1000
EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS
"""What is kept of a record too long to be held: no encoding takes more for such an excerpt."""

_MANY = 4096


@dataclass(frozen=True)
class Rejected:
    """A record that is no document."""

    reason: str
    """invalid_bytes, invalid_json, missing_text_field, text_not_a_string, oversized, damaged_file."""
    excerpt: str
    """The beginning of the record, unprintable characters escaped, 1000 characters at most; of a
    damaged file, what is wrong with it."""
    where: str
    """``file name:byte offset[ id=...]``, ``file name:row N`` in Parquet, or a damaged file's name."""


@dataclass(frozen=True)
class Places:
    """Where the documents of a block stand; nothing is worked out before it is asked for."""

    prefix: str
    """``file name:`` or ``file name:row ``."""
    find_numbers: Callable[[], Sequence[int]]
    """For each document its byte offset or row."""
    ids: Sequence[str] = ()

    @cached_property
    def _numbers(self) -> Sequence[int]:
        return self.find_numbers()

    def of(self, index: int) -> str:
        return place(self.prefix, self._numbers[index], self.ids[index] if self.ids else "")


@dataclass(frozen=True)
class Block:
    """What a few megabytes held."""

    documents: list[str]
    rejected: list[Rejected]
    replaced: int
    """U+FFFD characters put in for bytes that are no text and for lone surrogates."""
    raw_bytes: int
    """Bytes of the unit taken since the last block: they sum to the unit's bytes."""
    places: tuple[tuple[int, Places], ...] = field(default=(), repr=False, compare=False)
    """For each stretch of the documents the number of its first one, and their places."""

    def where(self, index: int) -> str:
        """The place of the document with that number, as in ``Rejected.where``."""
        first, places = self.places[bisect_right(self.places, index, key=lambda one: one[0]) - 1]
        return places.of(index - first)


def place(prefix: str, number: int, name: str) -> str:
    """One line, whatever a record calls itself."""
    return f"{prefix}{number} id={_printable(name)}" if name else f"{prefix}{number}"


def excerpt(data: bytes, encoding: str = "utf-8") -> str:
    r"""The beginning of ``data`` for `Rejected`; bytes that are no text as ``\xNN``."""
    return _printable(data[:EXCERPT_BYTES].decode(encoding, "backslashreplace"))


def _printable(text: str) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:EXCERPT_CHARACTERS])
    return shown[:EXCERPT_CHARACTERS]


def join_small(blocks: Iterable[Block], wanted_bytes: int) -> Iterator[Block]:
    """The same documents in fewer blocks: what costs a call a block is dear for small files."""
    held: list[Block] = []
    total = 0
    for block in blocks:
        many = len(block.documents) > _MANY
        # Of a packed file the documents outweigh the bytes taken.
        size = wanted_bytes if many else max(block.raw_bytes, sum(map(len, block.documents)))
        if held and total + size > wanted_bytes:
            yield _join(held)
            held, total = [], 0
        held.append(block)
        total += size
    if held:
        yield _join(held)


def _join(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    documents: list[str] = []
    rejected: list[Rejected] = []
    places: list[tuple[int, Places]] = []
    for block in blocks:
        places += [(len(documents) + first, one) for first, one in block.places]
        documents += block.documents
        rejected += block.rejected
    replaced = sum(block.replaced for block in blocks)
    raw_bytes = sum(block.raw_bytes for block in blocks)
    return Block(documents, rejected, replaced, raw_bytes, tuple(places))
