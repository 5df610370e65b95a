"""How names are shown in messages."""

import pytest

from preprocess.errors import hidden, one_line, printable, without_secrets, without_secrets_of


def test_control_characters_are_reported_as_escapes() -> None:
    name = "a\x1b[31m\r\x00\ud800é\u3000\u2028\u202e\n"
    shown = "a\\x1b[31m\\r\\x00\\ud800é\u3000\\u2028\\u202e"
    assert printable(name) == f"{shown}\n"
    assert one_line(name) == f"{shown}\\n"
    assert printable("é\n") == "é\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@host/a.txt", "https://***@host/a.txt"),
        ("HTTPS://token@host", "HTTPS://***@host"),
        ("https://me:p/w@h:1/a and s3://a:b@c", "https://***@h:1/a and s3://***@c"),
        ("https://me:p@w@host/a", "https://***@host/a"),
        ("zip://x::https://me:pw@host/a.zip", "zip://x::https://***@host/a.zip"),
        ("sftp://me:pw@host/a", "sftp://***@host/a"),
        (
            "https://h/a?X-Amz-Signature=a%2F&x=1&AWSAccessKeyId=b&GoogleAccessId=c&sig=d",
            "https://h/a?X-Amz-Signature=***&x=1&AWSAccessKeyId=***&GoogleAccessId=***&sig=***",
        ),
        ("https://h/a?%74oken=a#access_token=b", "https://h/a?%74oken=***#access_token=***"),
        ("'https://h/a?sig=a/b+c==': gone", "'https://h/a?sig=***': gone"),
    ],
)
def test_secrets_in_urls_are_hidden(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert printable(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "a.txt",
        "s3://bucket/a@b:c.txt",
        "https://host:8080/a@b.txt",
        "https://[::1]:80/a@b?author=me&tokens=5&monkey=1",
        "https://host?a=b@c",
        "sftp://me@host/a",
        "abfs://container@account.dfs.core.windows.net/a",
        "github://owner:repository@main/a",
        "hf://datasets/owner/name@main/a",
    ],
)
def test_other_urls_are_shown_whole(url: str) -> None:
    assert without_secrets(url) == url


def test_what_another_library_says_of_a_url_hides_its_secrets() -> None:
    said = "Invalid bucket name 'AK:pw1@b', pw1 or 5ig"
    assert without_secrets_of("s3://AK:pw1@b/c?sig=5ig", said) == (
        "Invalid bucket name '***@b', *** or ***"
    )
    assert without_secrets_of("s3://b/c", said) == said


def test_assigned_secrets_are_hidden() -> None:
    text = (
        """{"API_KEY": "a b", 'token': 'c'} PASSWORD=d --secret e --port 5 keyboard=f me:g@h:80"""
    )
    assert hidden(text) == (
        """{"API_KEY": "***", 'token': '***'} PASSWORD=*** --secret *** --port 5 keyboard=f ***@h:80"""
    )
