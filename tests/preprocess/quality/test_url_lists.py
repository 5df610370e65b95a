"""Lists of URLs: which documents they drop, and files that are refused."""

import gzip
from pathlib import Path

import pytest

from preprocess.errors import UserError
from preprocess.quality.url_lists import UrlLists, cached_url_lists, content_of_lists
from preprocess.text.quality.config import UrlConfig


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def reasons(config: UrlConfig, *ids: str) -> list[str | None]:
    return UrlLists(config).reasons(ids)[0]


def test_a_domain_drops_its_subdomains_and_no_other_domain(tmp_path: Path) -> None:
    config = UrlConfig(domains=write(tmp_path / "d", "# comment\n\nBad.Example\r\nwww.one.org\n"))
    assert reasons(
        config,
        "https://bad.example/",
        "HTTP://user@a.b.BAD.example:443/x?y",
        "https://notbad.example/",
        "https://bad.example.org/",
        "https://one.org/",
        "https://www.one.org",
    ) == ["url_domain", "url_domain", None, None, None, "url_domain"]


def test_urls_are_compared_without_scheme_www_port_fragment_and_slash(tmp_path: Path) -> None:
    config = UrlConfig(urls=write(tmp_path / "u", "a.org/Page/\nhttps://b.org/x?q=1\n"))
    assert reasons(
        config,
        "https://www.a.org:443/page#top",
        "http://a.org/page/more",
        "http://b.org/x?q=1",
        "http://b.org/x",
    ) == ["url", None, "url", None]


def test_words_are_whole_words_of_the_url(tmp_path: Path) -> None:
    config = UrlConfig(words=write(tmp_path / "w", "Poker\n"))
    ids = ("https://a.org/online-POKER_x", "https://pokerface.org/", "https://a.org/?q=poker")
    assert reasons(config, *ids) == ["url_word", None, "url_word"]


def test_folders_have_files_named_domains_and_urls_plain_or_packed(tmp_path: Path) -> None:
    write(tmp_path / "adult/domains.gz", "bad.org\n")
    write(tmp_path / "adult/urls", "good.org/bad\n")
    write(tmp_path / "adult/usage", "black\n")
    write(tmp_path / "ads/domains", "ads.org")
    config = UrlConfig(folders=(str(tmp_path / "adult"), str(tmp_path / "ads")))
    ids = (
        "http://bad.org/",
        "http://good.org/bad",
        "http://good.org/",
        "http://x.ads.org/",
        "7",
        "",
    )
    found, without = UrlLists(config).reasons(ids)
    assert found == ["url_domain", "url", None, "url_domain", None, None]
    assert without == 2


def test_the_content_counts_and_not_the_path(tmp_path: Path) -> None:
    first = UrlConfig(domains=write(tmp_path / "a", "x.org\n"))
    same = UrlConfig(domains=write(tmp_path / "b.gz", "x.org\n"))
    other = UrlConfig(domains=write(tmp_path / "c", "y.org\n"))
    role = UrlConfig(urls=write(tmp_path / "a", "x.org\n"))
    assert content_of_lists(first) == content_of_lists(same)
    assert len({content_of_lists(one) for one in (first, other, role)}) == 3


def test_lists_are_loaded_once_until_a_file_changes(tmp_path: Path) -> None:
    config = UrlConfig(domains=write(tmp_path / "a", "x.org\n"))
    lists = cached_url_lists(config)
    assert cached_url_lists(config) is lists
    (tmp_path / "new").write_text("y.org\n")
    (tmp_path / "new").replace(tmp_path / "a")
    assert cached_url_lists(config).reasons(["http://y.org"])[0] == ["url_domain"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"filters\.urls: .*list: cannot be read \(No such file or directory\)"),
        (b"", r"filters\.urls: .*list: this file has no entries"),
        (b"\n \n", "this file has no entries"),
        (b"a.org\n\0\1", "this is a binary file, not text with a line an entry"),
        (gzip.compress(b"a.org\n" * 99, mtime=0)[:-9], "damaged|ends|truncated|incomplete"),
    ],
)
def test_a_missing_empty_binary_or_damaged_file_is_refused(
    tmp_path: Path, data: bytes | None, message: str
) -> None:
    path = tmp_path / "list"
    if data is not None:
        path.write_bytes(data)
    for load in (UrlLists, content_of_lists):
        with pytest.raises(UserError, match=message):
            load(UrlConfig(domains=str(path)))


def test_a_folder_without_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file named domains or urls; name the folder of a"):
        UrlLists(UrlConfig(folders=str(tmp_path)))
