"""Masks: what is replaced, what is not, and what is counted and shown."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocess.text.quality.config import MaskConfig
from preprocess.text.quality.masking import Masker

MASKER = Masker(MaskConfig(email="<email>", ip="<ip>", phone="<phone>"))


def masked(text: str) -> str:
    return MASKER.mask(text, Counter(), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+news@mail.example.co.uk.", "write to <email>."),
        ("(a@b.org,c_d@e-f.de)", "(<email>,<email>)"),
        ("mailto:jörg@müller.de", "mailto:<email>"),
        ("https://x.org/?to=jane@mail.org&n=1", "https://x.org/?to=<email>&n=1"),
        ("from 93.184.216.34:80 and 200.1.2.3.", "from <ip>:80 and <ip>."),
        ("at 2606:2800:220:1:248:1893:25c8:1946 or 2001:4860:4860::8888", "at <ip> or <ip>"),
        ("call +49 30 901820-15 now", "call <phone> now"),
        ("+1 (555) 234-5678; +86 138 1234 5678", "<phone>; <phone>"),
        ("call (555) 234-5678, 555-234-5678 or 555.234.5678", "call <phone>, <phone> or <phone>"),
        ("Tel. 030 90182015, (020) 7946 0958, 0171/2345678", "Tel. <phone>, <phone>, <phone>"),
    ],
)
def test_personal_data_are_replaced(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "@jane and user@host and a @ b.de and sprite@2x.png, logo@site.PNG",
        "https://medium.com/@jane.doe/post and youtube.com/@news.channel",
        "Version: 12.34.56.78 (v 12.34.56.78), version=12.34.56.78",
        "version 1.2.3.4, release 10.20.30.40, section 3.1.4.2, 1.2.3",
        "router 192.168.0.1, localhost 127.0.0.1, 10.0.0.1, 300.1.2.3, 93.184.216.34.5",
        "at 12:30:45 on 2024-01-02, std::vector, a::b, ratio 3:2:1",
        "2024-01-02 12:30, 01.02.2024, 01/02/2024, 01-02-2024 and 1990-1995",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISSN 0317-8471",
        "price 1,234,567.89 or 1.234.567,89 EUR, 10 000 000, 0.123 456 789",
        "pi is 3.14159265358979 and 12345678901234567890",
        "rows 100-200-300, code 12-345-678",
    ],
)
def test_other_numbers_and_signs_stay(text: str) -> None:
    assert masked(text) == text


def test_only_the_kinds_that_are_set_are_replaced() -> None:
    text = "a@b.org 93.184.216.34 +49 30 901820"
    assert not Masker(MaskConfig()).active
    assert Masker(MaskConfig(ip="[IP]")).mask(text, Counter(), []) == "a@b.org [IP] +49 30 901820"


def test_replacements_are_counted_by_kind_and_shown_without_the_data() -> None:
    counts: Counter[str] = Counter()
    examples: list[tuple[str, str]] = []
    MASKER.mask("Ask Ann: ann7@mail.org or bob@mail.org, 93.184.216.34.", counts, examples)
    assert counts == {"email": 2, "ip": 1}
    assert examples[0] == ("email", "Ask Ann: xxx0@xxxx.xxx or bob@mail.org, 93.184.216.3")
    assert "93.184" not in examples[1][1]


@given(st.text(alphabet="ab1 .@:+-()/09", max_size=80))
def test_masking_changes_nothing_else_and_is_stable(text: str) -> None:
    once = masked(text)
    assert masked(once) == once
    if once == text:
        assert "<" not in once


@pytest.mark.parametrize("replacement", ["", " a", "a  b", "a\nb", "\u0301a", "a\x00"])
def test_a_replacement_is_one_line_of_printable_text(replacement: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        MaskConfig(email=replacement)
