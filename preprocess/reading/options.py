"""What the reading of a file depends on, apart from its bytes."""

from collections.abc import Callable
from dataclasses import dataclass

from preprocess.config import PrepareConfig, Source

BLOCK_BYTES = 256 * 1024
"""Default raw bytes per block. This fits the processor's cache; with blocks of 4 MB, reading takes
about 1.5 times as long."""
_FIELDS = PrepareConfig.model_fields


@dataclass(frozen=True)
class Limits:
    """Limits of a reader, with the defaults of `PrepareConfig`.

    Attributes:
        max_document_bytes: bytes above which a record is rejected as "oversized".
        max_expansion: ratio of uncompressed to compressed bytes above which a file counts as damaged;
            files that unpack to at most 256 MB never do.
        skip_damaged: yield a `Rejected` for a damaged file instead of raising `DamagedFile`.
    """

    max_document_bytes: int = _FIELDS["max_document_bytes"].default
    max_expansion: int = _FIELDS["max_expansion"].default
    skip_damaged: bool = False

    @staticmethod
    def of(config: PrepareConfig) -> "Limits":
        """Return the limits that a config sets."""
        return Limits(
            config.max_document_bytes, config.max_expansion, config.damaged_files == "skip"
        )


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class ReadOptions:
    """Settings for the reader of a format.

    Attributes:
        source: source of the file.
        limits: limits of record size and compression.
        drop_invalid: reject records with invalid bytes; otherwise invalid bytes become U+FFFD.
        block_bytes: bytes of text per block, approximately.
        alive: called after every few hundred kilobytes, also inside a long document, to show progress.
    """

    source: Source
    limits: Limits = DEFAULT_LIMITS
    drop_invalid: bool = False
    block_bytes: int = BLOCK_BYTES
    alive: Callable[[], None] = lambda: None
