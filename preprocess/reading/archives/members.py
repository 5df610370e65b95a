"""Reading of the members of an archive, each as a stream of its own."""

from collections.abc import Callable, Iterable, Iterator

from preprocess.errors import one_line
from preprocess.reading.archives.sequential import Sequential
from preprocess.reading.block import Block, Rejected
from preprocess.reading.byte_range import (
    NOT_TEXT,
    OLD_LINE_ENDS,
    WRONG_DECLARED,
    DamagedFile,
    damaged_file,
)
from preprocess.reading.compression import FREE_EXPANSION_BYTES, bomb
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Findings, Stream, whole

Read = Callable[[Stream, ReadOptions], Iterator[Block]]
"""Reads the documents of a stream; this is `preprocess.reading.documents.read_documents`."""
NOT_A_FILE = "not_a_file"
"""Reason under which links and devices in an archive are counted."""


class Members:
    """Reads members of one archive, in the order of their bytes.

    Args:
        archive: the archive, or a range of it.
        source: its bytes.
        options: settings.
        read: reads the documents of a member.
    """

    def __init__(
        self, archive: Stream, source: Sequential, options: ReadOptions, read: Read
    ) -> None:
        self._archive = archive
        self._source = source
        self._options = options
        self._read = read
        self._unpacked = 0
        self._is_bomb = False

    def path_of(self, label: str) -> str:
        """Return the path of a member for messages."""
        return f"{self._archive.path}/{label}"

    def documents(self, label: str, chunks: Iterable[bytes], size: int) -> Iterator[Block]:
        """Yield the documents of a member.

        A member that is not text is rejected. A member that is damaged is rejected if damaged files are
        skipped.

        Args:
            label: its name, from `names.label_of`.
            chunks: its bytes, uncompressed.
            size: number of its bytes.

        Raises:
            DamagedFile: the archive or the member is damaged.
        """
        findings = Findings()
        stream = Stream(
            f"{self._archive.name}/{label}",
            self.path_of(label),
            b"",
            (),
            lambda start, end: b"",
            size=size,
            is_member=True,
            count_unpacked=self._count,
            findings=findings,
        )
        try:
            stream = whole(stream, self._counted(chunks), self._options).changed(size=size)
            yield from self._read(stream, self._options)
        except DamagedFile as error:
            if self._is_bomb:
                raise
            if error is not self._source.error:
                yield self.rejection(label, error)
        if self._source.error:
            raise self._source.error
        if findings.encoding:
            self._archive.findings.add_member(label, findings.encoding)
        if findings.note in (OLD_LINE_ENDS, WRONG_DECLARED):
            self._archive.findings.note = findings.note

    def rejection(self, label: str, error: DamagedFile) -> Block:
        """Return the block that rejects a member, or raise its error; see `documents`."""
        if error.reason != NOT_TEXT and not self._options.limits.skip_damaged:
            raise error
        archive = self._archive
        message = str(error).replace(one_line(archive.path), one_line(archive.name))
        return Block([], [Rejected(error.reason, message, f"{archive.name}/{label}")], 0, 0)

    def not_a_file(self, label: str, what: str) -> Block:
        """Return the block that counts a link or a device."""
        name = f"{self._archive.name}/{label}"
        message = f"{one_line(name)}: this is {what}, which is not read"
        return Block([], [Rejected(NOT_A_FILE, message, name)], 0, 0)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for data in chunks:
            self._count(len(data))
            yield data

    def _count(self, size: int) -> None:
        """Count bytes of members, and compare them with the bytes of the archive that were read."""
        self._unpacked += size
        most = self._options.limits.max_expansion
        allowed = max(self._source.bytes_read * most, FREE_EXPANSION_BYTES)
        if self._unpacked > allowed:
            self._is_bomb = True
            raise bomb(self._archive.path, allowed, most)


def damaged_archive(archive: Stream, kind: str, problem: str) -> DamagedFile:
    """Return the error for an archive that cannot be read to its end."""
    return damaged_file(archive.path, f"damaged {kind} archive ({problem})")
