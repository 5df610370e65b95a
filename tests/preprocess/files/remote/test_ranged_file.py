"""A stream over ranges: the same bytes as a file gives, and few requests."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preprocess.files.remote import ranged_file
from preprocess.files.remote.ranged_file import LEAST_BYTES, MOST_BYTES, Part, RangedFile

Request = tuple[int, int]


def opened(data: bytes, part: Part | None = None) -> tuple[RangedFile, list[Request]]:
    """Return a file, and the list to which its requests are added."""
    requests: list[Request] = []

    def read(start: int, end: int) -> bytes:
        requests.append((start, end))
        return data[start:end]

    return RangedFile(read, len(data), part), requests


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 350), st.sampled_from([0, 1, 2]), st.integers(-1, 120))),
    st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
@example(bytes(21), [(0, 0, -1)], (0, 22))
def test_reads_and_seeks_are_those_of_a_file(
    data: bytes, steps: list[tuple[int, int, int]], part: tuple[int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranged_file, "MOST_BYTES", 40)
        patch.setattr(ranged_file, "LEAST_BYTES", 7)
        patch.setattr(ranged_file, "SMALL_BYTES", 20)
        file, requests = opened(data, Part(*sorted(part)))
        model = io.BytesIO(data)
        for place, whence, size in steps:
            # From the end or the present position, backwards too.
            offset = place if whence == 0 else place - 350
            if whence and {1: model.tell(), 2: len(data)}[whence] + offset < 0:
                with pytest.raises(ValueError, match="negative position"):
                    file.seek(offset, whence)
                continue
            assert file.seek(offset, whence) == model.seek(offset, whence)
            assert file.read(size) == model.read(size)
            assert file.tell() == model.tell()
    assert all(0 < end - start <= 40 and end <= len(data) for start, end in requests)


def test_a_small_file_is_one_request() -> None:
    file, requests = opened(bytes(1000), Part(10, 20))
    while file.read(64):
        pass
    assert requests == [(0, 1000)]


def test_a_unit_of_a_large_file_is_one_request() -> None:
    size = 4 << 20
    file, requests = opened(bytes(size), Part((1 << 20) - 1, 2 << 20))
    file.seek((1 << 20) - 1)
    while file.tell() < 2 << 20:
        file.read(1000)
    assert requests[0] == ((1 << 20) - 1, 2 << 20)
    assert len(requests) <= 2


def test_a_large_file_is_read_in_few_requests() -> None:
    size = 2 * MOST_BYTES + 5
    file, requests = opened(bytes(size))
    while file.read(1 << 20):
        pass
    assert requests == [(0, MOST_BYTES), (MOST_BYTES, 2 * MOST_BYTES), (2 * MOST_BYTES, size)]


def test_only_what_is_read_is_requested_outside_of_the_part() -> None:
    size = 3 << 20
    file, requests = opened(bytes(size), Part(0, 0))
    file.seek(-8, io.SEEK_END)
    assert len(file.read(8)) == 8
    file.seek(1 << 20)
    assert len(file.read(100)) == 100
    assert len(file.read(2 * LEAST_BYTES)) == 2 * LEAST_BYTES
    first = 1 << 20
    assert requests == [
        (size - 8, size),
        (first, first + LEAST_BYTES),
        (first + LEAST_BYTES, first + 100 + 2 * LEAST_BYTES),
    ]


def test_a_file_that_shrank_ends_early() -> None:
    file = RangedFile(lambda start, end: b"12345"[start:end], 9)
    assert file.read() == b"12345"
    assert file.read(1) == b""


def test_it_reads_into_a_buffer() -> None:
    file, _ = opened(b"0123456789")
    buffer = bytearray(4)
    assert file.readinto(buffer) == 4
    assert (bytes(buffer), file.readall()) == (b"0123", b"456789")
    assert file.readable()
    assert file.seekable()
