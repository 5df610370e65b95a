"""Masks: what is replaced, what is not, and what is counted and shown."""

import time
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


PHONES = (
    *("+1 555 234 5678", "1-800-555-1234", "(555) 234-5678", "+1.555.234.5678"),  # North America
    *(
        "020 7946 0958",
        "01632 960001",
        "07700 900123",
        "(0131) 496 0000",
        "+44 20 7946 0958",
    ),  # United Kingdom
    *(
        "030 901820",
        "0171/2345678",
        "089-1234567",
        "+49 (0)30/901820-15",
        "0049 30 901820",
    ),  # Germany
    *("01 23 45 67 89", "06.12.34.56.78", "06-12-34-56-78", "+33 1 23 45 67 89"),  # France
    *("06 1234 5678", "+39 06 1234 5678", "+34 912 345 678"),  # Italy, Spain
    *(
        "044 668 18 00",
        "+41 44 668 18 00",
        "020-1234567",
        "02 555 12 12",
    ),  # Switzerland, Netherlands, Belgium
    *("08-123 456 78", "+45 33 12 34 56", "+48 22 123 45 67"),  # Sweden, Denmark, Poland
    *("03-1234-5678", "090-1234-5678", "010-12345678", "02-123-4567"),  # Japan, China, Korea
    *(
        "02 9374 4000",
        "0412 345 678",
        "09 123 4567",
        "011 123 4567",
    ),  # Australia, New Zealand, South Africa
    *("+91 98765 43210", "+55 11 91234-5678", "+7 495 123-45-67"),  # India, Brazil, Russia
)


@pytest.mark.parametrize("phone", PHONES)
def test_phone_numbers_of_many_countries_are_replaced(phone: str) -> None:
    assert masked(f"Call {phone}, or write.") == "Call <phone>, or write."


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "IBAN: DE00 3704 0044 0532 0130 00",
        "FR14 2004 1010 0505 0001 3M02 606 and AT61 1904 3002 3457 3201 2024",
        "IT60 X054 2811 1010 0000 0123 456; BE68-5390-0754-7034",
        "NO93 8601 1117 947",
        "PT50 0002 0123 1234 5678 9015 4",
    ],
)
def test_bank_account_numbers_stay(text: str) -> None:
    assert masked(text) == text


def test_a_number_that_only_looks_like_a_bank_account_is_a_phone_number() -> None:
    assert masked("Room AB12 0800 1234 5678") == "Room AB12 <phone>"
    assert masked("DE00 3704 0044 0532 0130 00") != "DE00 3704 0044 0532 0130 00"


def test_zip_codes_stay_unless_a_call_is_named() -> None:
    text = "12345-6789, Boston, MA 02115-1234, 90210-1234"
    assert masked(text) == text
    assert masked("Telefon: 07531-1234") == "Telefon: <phone>"


@pytest.mark.parametrize(
    "text",
    [
        "Chrome/120.0.6099.71, Chrome/96.0.12.71, firefox 1.2.3.4, Firefox 121.0.12.2",
        "nginx/1.25.3.11 (Mozilla/5.11.12.13) and Windows 11.0.22.12",
        "Python-3.12.1.44, lib-12.10.3.44.tar.gz, my_lib_2.34.11.8.zip",
        "setup-12.10.3.44.exe; 12.10.3.44-beta; the 12.10.3.44.dmg",
        "lib>=2.34.11.8 lib==2.34.11.8, lib <= 2.34.11.8",
        "versions 12.34.56.78, 12.34.56.79 and 12.34.56.80",
        "firmware 12.34.56.78, Build: 12.34.56.78, SDK 12.34.56.78, § 12.34.56.78",
        "the networks 93.184.216.0/24 and 12.0.0.1",
    ],
)
def test_versions_of_four_parts_stay(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh root@93.184.216.34", "ssh root@<ip>"),
        (
            "http://93.184.216.34/x, https://ip.org/93.184.216.34",
            "http://<ip>/x, https://ip.org/<ip>",
        ),
        ("whois.org/check/93.184.216.34", "whois.org/check/<ip>"),
        ("93.184.216.34-93.184.216.40", "<ip>-<ip>"),
        ("server 93.184.216.34, IP=93.184.216.34", "server <ip>, IP=<ip>"),
        ("The new version is online. 93.184.216.34", "The new version is online. <ip>"),
    ],
)
def test_addresses_beside_other_signs_are_replaced(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "+1 000 000 000 dollars, +15 25 35 45 55",
        "2024 01 15 12 30 45, 05 06 07 08 09, 05 12 23 34 45 49",
        "01.02.2024 12.30",
    ],
)
def test_amounts_times_and_lists_are_no_phone_numbers(text: str) -> None:
    assert masked(text) == text


def test_many_digits_after_a_word_take_no_time() -> None:
    text = f"version {'1.' * 20}1x 12.34.56.78 " * 200
    began = time.process_time()
    masked(text)
    assert time.process_time() - began < 2


def test_only_the_kinds_that_are_set_are_replaced() -> None:
    text = "a@b.org 93.184.216.34 +49 30 901820"
    assert not Masker(MaskConfig()).active
    assert Masker(MaskConfig(ip="[IP]")).mask(text, Counter(), []) == "a@b.org [IP] +49 30 901820"


def test_replacements_are_counted_by_kind_and_shown_without_the_data() -> None:
    counts: Counter[str] = Counter()
    examples: list[tuple[str, str]] = []
    MASKER.mask("Ask Ann: ann7@mail.org or bob@mail.org, 93.184.216.34.", counts, examples)
    assert counts == {"email": 2, "ip": 1}
    assert examples[0] == ("email", "Ask Ann: xxx0@xxxx.xxx or <email>, <ip>.")
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


def test_an_example_shows_no_other_personal_data() -> None:
    examples: list[tuple[str, str]] = []
    text = "Write to ann@a.org, bob.smith@mail.com or +49 30 90182012, or 93.184.216.34."
    MASKER.mask(text, Counter(), examples)
    assert examples == [
        ("email", "Write to xxx@x.xxx, <email> or <phone>, or <ip>."),
        ("ip", "mail>, <email> or <phone>, or 00.000.000.00."),
        ("phone", "Write to <email>, <email> or +00 00 00000000, or <ip>."),
    ]
