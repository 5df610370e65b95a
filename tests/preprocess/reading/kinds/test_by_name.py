"""Names by which files and folders are left out of an input folder."""

import pytest

from preprocess.reading.kinds.by_name import kind_of_file, kind_of_folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", None),
        ("README", None),
        ("png", None),
        ("a.md", None),
        ("a.unknown", None),
        ("a.tar.gz", None),
        ("_posts.txt", None),
        ("wiki.test.raw", None),
        *((f"corpus.{language}", None) for language in ("pt", "so", "ps", "br", "lo", "id")),
        ("a.PNG", "image (.png)"),
        ("a.tar.7z", "archive or compressed file of a kind that is not read (.7z)"),
        ("a.txt.sha256", "checksum or signature (.sha256)"),
        ("_SUCCESS", "marker of a finished job"),
        ("_committed_123", "marker of a finished job"),
        (".a.txt.crc", "hidden file"),
        ("Thumbs.db", "hidden file"),
        ("a.db", "database (.db)"),
    ],
)
def test_a_file_is_left_out_by_its_name(name: str, kind: str | None) -> None:
    found = kind_of_file(name)
    assert (found and found[0]) == kind


def test_a_folder_is_left_out_by_its_name() -> None:
    names = (".git", "_temporary", "__MACOSX", "_posts", "work")
    assert [kind_of_folder(name) is None for name in names] == [False, False, False, True, True]
