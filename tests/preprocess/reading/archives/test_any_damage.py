"""Archives that are cut or changed at any byte: what is read is text of the members, and no error escapes."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.reading.byte_range import DamagedFile
from tests.preprocess.reading.archives.conftest import SKIP, TEXTS, ReadArchive
from tests.preprocess.reading.archives.test_tar_archive import PACKERS, tar
from tests.preprocess.reading.archives.test_zip_archive import zipped

ARCHIVES: dict[str, Callable[[], bytes]] = {
    "tar": tar,
    "tar.gz": lambda: PACKERS["a.tar.gz"](tar()),
    "zip": zipped,
}
many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("kind", ARCHIVES)
@many
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_cut_archive_has_the_first_texts_and_is_counted(
    kind: str, place: float, read_archive: ReadArchive
) -> None:
    whole = ARCHIVES[kind]()
    # The padding at the end of a tar archive may be missing.
    end = len(whole.rstrip(b"\0")) if kind == "tar" else len(whole)
    data = whole[: 1024 + int(place * (end - 1024))]
    with pytest.raises(DamagedFile):
        read_archive(data)
    read = read_archive(data, limits=SKIP, once=True)
    assert read.texts == TEXTS[: len(read.texts)]
    assert read.rejected[-1] == ("damaged_file", "a.archive")


@pytest.mark.parametrize("kind", ARCHIVES)
@many
@given(
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3),
    flip=st.integers(1, 255),
)
def test_a_changed_archive_ends_with_a_count_of_what_is_wrong(
    kind: str, places: list[float], flip: int, read_archive: ReadArchive
) -> None:
    data = bytearray(ARCHIVES[kind]())
    for place in places:
        data[600 + int(place * (len(data) - 600))] ^= flip
    read = read_archive(bytes(data), limits=SKIP, once=True)
    assert {reason for reason, _ in read.rejected} <= {
        *("damaged_file", "not_text", "not_a_file", "invalid_json", "missing_text_field"),
        *("text_not_a_string", "wrong_encoding"),
    }
