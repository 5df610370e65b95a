"""Lists of URLs: which documents are dropped by where they come from.

The lists of the University of Toulouse (https://dsi.ut-capitole.fr/blacklists/) are folders by
category with the files ``domains`` and ``urls``; FineWeb used them in this way (Penedo et al. 2024,
appendix, "URL filtering"). Entries are held as sorted 64-bit hashes, so that a million of them take
8 MB.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.quality.list_files import content_of_files, list_entries, paths_of, versions_of
from preprocess.text.quality.config import UrlConfig

SETTING = "filters.urls"
REASONS = ("url_domain", "url", "url_word")
_ENDINGS = ("", ".gz", ".bz2", ".xz", ".zst", ".txt")
_WORDS = re.compile(rb"[a-z0-9]+")
_SCHEMES = (b"http://", b"https://")
_PORTS = (b":80", b":443")


class UrlLists:
    """The lists that a config names.

    Raises:
        UserError: a file is missing, empty, damaged or not text; a folder has no list.
    """

    def __init__(self, config: UrlConfig) -> None:
        files = list_files(config)
        self._domains = _hashes(path for role, path in files if role == "domains")
        self._urls = _hashes((path for role, path in files if role == "urls"), as_urls=True)
        self._words = frozenset(
            entry
            for role, path in files
            if role == "words"
            for entry in list_entries(path, SETTING)
        )

    def reasons(self, ids: Sequence[str]) -> tuple[list[str | None], int]:
        """Return why each document is dropped, or None, and how many ids are no URLs.

        A domain drops its subdomains too. URLs are compared in lower case, without scheme, ``www.``,
        default port, fragment and last slash.

        Args:
            ids: id of each document; empty if it has none.
        """
        reasons: list[str | None] = [None] * len(ids)
        domains, urls = _Wanted(), _Wanted()
        without = 0
        for number, given in enumerate(ids):
            url = given.encode("utf-8", "surrogatepass").strip()
            if not url[:8].lower().startswith(_SCHEMES):
                without += 1
                continue
            host, path = _parts(url)
            parts = host.split(b".")
            if len(self._domains):
                domains.add(number, [b".".join(parts[at:]) for at in range(len(parts))])
            if len(self._urls):
                urls.add(number, [_plain(host, path)])
            if self._words and not self._words.isdisjoint(_WORDS.findall(url.lower())):
                reasons[number] = "url_word"
        # The first of domain, URL and word that applies is the reason.
        for wanted, hashes, reason in (
            (urls, self._urls, "url"),
            (domains, self._domains, "url_domain"),
        ):
            for number in wanted.among(hashes):
                reasons[number] = reason
        return reasons, without


class _Wanted:
    """Entries to look up, with the numbers of the documents that they are from."""

    def __init__(self) -> None:
        self._hashes, self._numbers = array("Q"), array("I")

    def add(self, number: int, entries: Sequence[bytes]) -> None:
        self._hashes.extend(map(xxhash.xxh3_64_intdigest, entries))
        self._numbers.extend([number] * len(entries))

    def among(self, hashes: npt.NDArray[np.uint64]) -> list[int]:
        """Return the numbers of the documents with an entry among the hashes."""
        if not self._hashes:
            return []
        wanted = np.frombuffer(self._hashes, np.uint64)
        nearest = np.searchsorted(hashes, wanted).clip(max=len(hashes) - 1)
        found = np.frombuffer(self._numbers, np.uint32)[hashes[nearest] == wanted]
        numbers: list[int] = np.unique(found).tolist()
        return numbers


def list_files(config: UrlConfig) -> list[tuple[str, str]]:
    """Return (domains, urls or words; path) of each file of the lists.

    Raises:
        UserError: a folder has neither domains nor urls.
    """
    files = [
        (role, path)
        for role in ("domains", "urls", "words")
        for path in paths_of(getattr(config, role))
    ]
    for folder in paths_of(config.folders):
        names = storage.list_names(folder)
        found = [
            (role, storage.join(folder, name))
            for role in ("domains", "urls")
            for name in names
            if name in [role + ending for ending in _ENDINGS]
        ]
        if not found:
            raise UserError(
                f"{SETTING}.folders: {one_line(folder)} has no file named domains or urls; name the "
                "folder of a category, such as blacklists/adult"
            )
        files += found
    return files


def content_of_lists(config: UrlConfig) -> str:
    """Return a hash of the contents of all lists, for the fingerprint.

    Raises:
        UserError: as in `UrlLists`.
    """
    return content_of_files(list_files(config), SETTING)


def cached_url_lists(config: UrlConfig) -> UrlLists:
    """Return the lists, which are loaded once a process, unless a file changes."""
    return _cached(config, versions_of(path for _, path in list_files(config)))


@lru_cache(4)
def _cached(config: UrlConfig, versions: tuple[float | None, ...]) -> UrlLists:
    return UrlLists(config)


def _hashes(paths: Iterator[str], as_urls: bool = False) -> npt.NDArray[np.uint64]:
    held = array("Q")
    digest = xxhash.xxh3_64_intdigest
    for path in paths:
        entries = list_entries(path, SETTING)
        held.extend(
            map(digest, (_plain(*_parts(entry)) for entry in entries) if as_urls else entries)
        )
    hashes = np.frombuffer(held, np.uint64) if held else np.empty(0, np.uint64)
    return np.sort(hashes)


def _parts(url: bytes) -> tuple[bytes, bytes]:
    """Return the host of a URL in lower case, without user and default port, and what follows."""
    start = url.find(b"://")
    rest = url[start + 3 :] if start >= 0 else url
    end = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
    host = rest[:end].rpartition(b"@")[2].lower().rstrip(b".")
    for port in _PORTS:
        host = host.removesuffix(port)
    return host, rest[end:]


def _plain(host: bytes, path: bytes) -> bytes:
    return host.removeprefix(b"www.") + path.partition(b"#")[0].rstrip(b"/").lower()
