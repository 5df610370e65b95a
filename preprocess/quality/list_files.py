"""Files of lists that a user names, such as blocked domains: a line an entry, plain or packed."""

from collections.abc import Iterable, Iterator

import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.errors import DamagedArchive
from preprocess.files.modified import modified
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.compression import find_compression, unpack
from preprocess.reading.reader import Limits
from preprocess.text.quality.config import Files

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16


def paths_of(files: Files | None) -> tuple[str, ...]:
    """Return the paths as a tuple."""
    return () if files is None else (files,) if isinstance(files, str) else files


def versions_of(paths: Iterable[str]) -> tuple[float | None, ...]:
    """Return when each file was last written, so that a list is read again after a change."""
    versions: list[float | None] = []
    for path in paths:
        try:
            versions.append(modified(path))
        except OSError:  # Reading the file will say what is wrong.
            versions.append(None)
    return tuple(versions)


def file_chunks(path: str, setting: str, binary: bool = False) -> Iterator[bytes]:
    """Yield the content of a file, unpacked.

    Args:
        path: path or URL.
        setting: name of the setting that names the file, for messages.
        binary: whether the file may be binary.

    Raises:
        UserError: the file is missing, empty, damaged or not text.
    """
    where = f"{setting}: {one_line(path)}"
    is_empty = True
    try:
        with storage.open_read(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_HEAD_BYTES)
            chunks: Iterable[bytes] = iter(lambda: file.read(_CHUNK_BYTES), b"")
            chunks = _joined(head, chunks)
            if compression := find_compression(head):
                most = Limits().max_expansion
                chunks = unpack(iter(chunks), compression, _CHUNK_BYTES, path, size, most)
            for chunk in chunks:
                if not binary and b"\0" in chunk:
                    raise UserError(
                        f"{where}: this is a binary file, not text with a line an entry"
                    )
                is_empty = is_empty and not chunk.strip()
                yield chunk
    except DamagedFile as error:
        problem = error.problem or str(error)
        raise UserError(f"{where}: {problem}; replace it with an intact copy") from error
    except (OSError, DamagedArchive) as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error
    if is_empty:
        raise UserError(f"{where}: this file has no entries; name another file, or null")


def _joined(head: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def list_entries(path: str, setting: str) -> Iterator[bytes]:
    """Yield the entries of a file in lower case, without comments (``#``) and blank lines.

    Raises:
        UserError: as in `file_chunks`.
    """
    rest = b""
    for chunk in file_chunks(path, setting):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(_is_entry, map(_entry, lines))
    if _is_entry(last := _entry(rest)):
        yield last


def _entry(line: bytes) -> bytes:
    # bytes.lower changes ASCII only, as domains need it.
    return line.strip().lower()


def _is_entry(line: bytes) -> bool:
    return bool(line) and not line.startswith(b"#")


def content_of_files(files: Iterable[tuple[str, str]], setting: str, binary: bool = False) -> str:
    """Return a hash of the contents of files, 32 hexadecimal digits.

    Args:
        files: what each file is for, and its path. The path does not change the hash.
        setting: name of the setting that names the files, for messages.
        binary: whether the files may be binary.

    Raises:
        UserError: as in `file_chunks`.
    """
    total = xxhash.xxh3_128()
    for role, path in files:
        one = xxhash.xxh3_128()
        for chunk in file_chunks(path, setting, binary):
            one.update(chunk)
        total.update(f"{role} {one.hexdigest()}\n".encode())
    return total.hexdigest()
