"""Files of unfinished work, compared with their records."""

import re
from pathlib import Path

import pytest

from preprocess.files.manifest import record_of
from preprocess.work.damage import DamagedWork, check_made

RECORD = record_of("a.bin", b"whole")


@pytest.mark.parametrize("is_published", [False, True])
def test_a_damaged_file_of_the_result_is_told(tmp_path: Path, is_published: bool) -> None:
    work = tmp_path / "embed" / "_work" / ("0" * 64)
    made = work / "result" / "a.bin"
    place = tmp_path / "embed" / "a.bin" if is_published else made
    place.parent.mkdir(parents=True)
    place.write_bytes(b"whole")
    check_made(str(made), RECORD)
    place.write_bytes(b"wholE")

    message = re.escape(f"{place} is damaged (hash ") + ".*" + re.escape(f"); delete {work}, which")
    with pytest.raises(DamagedWork, match=message):
        check_made(str(made), RECORD)
    place.unlink()
    check_made(str(made), RECORD)


def test_a_file_that_is_not_published_counts(tmp_path: Path) -> None:
    made = tmp_path / "embed" / "_work" / ("0" * 64) / "result" / "a.bin"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"whole")
    (tmp_path / "embed" / "a.bin").write_bytes(b"of a former result")

    check_made(str(made), RECORD)
