"""Replacement of personal data: e-mail addresses, IP addresses and phone numbers, found by pattern.

A pattern cannot tell every phone number from other numbers. What is masked, and what is not, is
documented in docs/quality.md and tested on both.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator

from preprocess.text.quality.config import MaskConfig

CONTEXT = 30
"""Characters shown on either side of an example."""
_MASKED_CONTEXT = 400
"""Characters on either side in which other personal data are masked, so that a cut one is not shown."""
_BEFORE = 60
"""Characters before a number that tell what it is."""

_EMAIL = re.compile(
    # Before the sign, only what addresses have in practice: "/" and "=" are parts of URLs around them.
    r"(?<![\w.+-])\w[\w.%+'-]{0,63}@"
    r"(?:\w(?:[\w-]{0,61}\w)?\.)+(?!(?i:png|jpe?g|gif|svg|webp)\b)[^\W\d_]{2,24}(?![\w@])"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP4 = re.compile(rf"(?<![\w.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.\d)", re.ASCII)
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])", re.ASCII)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Four-part versions, sections and file names have the form of an address. What is directly before them
# tells: a word such as "version", with another version in between ("versions 12.0.3.4 and 12.0.3.5"); the
# name of a program; or a name that is joined by a sign (nginx/1.25.3.11, lib-2.34.11.8, lib>=2.34.11.8).
_VERSION = re.compile(
    r"(?:\b(?:versions?|releases?|ver|v|rev|revision|build|update|patch|firmware|driver|kernel|framework"
    r"|section|chapter|clause|article|chrome|chromium|firefox|safari|edge|opera|explorer|windows|android"
    r"|ios|macos|linux|java|jdk|jre|sdk|php|python|flash|player|reader|mysql|apache|tomcat|nginx|openssl"
    # Possessive, because there are many ways to divide digits.
    r"|openssh|wordpress)|§)\W{0,3}(?:\d[\d.]++\W{0,3}+(?:(?:and|or|to)\W)?+)*+$"
    # A slash after a whole word only: in URLs it is before addresses, too.
    r"|[\s(;,][a-z][\w+]*/$"
    r"|[a-z]\w*[-_]$"
    r"|\w(?:==| ?[<>~]= ?)$",
    re.IGNORECASE,
)
_AFTER_VERSION = re.compile(
    r"-[a-z]|\.(?:tar|t?gz|zip|7z|exe|dll|so|jar|deb|rpm|msi|dmg|apk|whl)\b", re.IGNORECASE
)
_LARGEST_DIGIT = 9

_PHONE = re.compile(
    # International: +49 30 901820, +1 (555) 123-4567
    # After +1, no area code starts with 0 or 1: +1 000 000 000 is an amount.
    r"(?<![\w+])\+(?:1(?=[ ./-]?\(?[2-9]\d\d)|[2-9]\d{0,2})(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w-]|[.,]\d)"
    # North America: (555) 234-5678, 555-234-5678, 555.234.5678
    r"|(?<![\w.,/+-])(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d-|[2-9]\d\d\.)[2-9]\d\d[-.]\d{4}(?![\w-]|[.,]\d)"
    # With a trunk prefix: 030 901820-15, (020) 7946 0958, 0171/2345678
    r"|(?<![\w.,/+-])\(?0(?:[1-9]\d{0,3}|0[1-9]\d{0,2})\)?[ /-]\d{2,8}(?:[ -]\d{2,6}){0,4}(?![\w-]|[.,/]\d)"
    # With points, in France: 01.23.45.67.89
    r"|(?<![\w.,/+-])0[1-9](?:\.\d\d){4}(?![\w-]|[.,]\d)",
    re.ASCII,
)
_PHONE_DIGITS = range(9, 16)
_DATE = re.compile(r"\(?\d{1,2}\)?[ /-]\d{1,2}[ /-]\d{2,4}\b", re.ASCII)
_PAIRS = re.compile(r"0[1-9](?:[ .-]\d\d){4}", re.ASCII)
"""A phone number of France, whose first three pairs have the form of a date."""
_NUMBER, _ENDS_WITH_NUMBER = re.compile(r"[ .-]\d"), re.compile(r"\d[ .-]$")
_ZIP = re.compile(r"0\d{4}-\d{4}", re.ASCII)
"""A ZIP+4 code that starts with 0, which also has the form of a short phone number with an area code."""
_CALL = re.compile(r"(?:tel|phone|fon|fax|mobile?|cell|call|dial)\w*\W{0,3}$", re.IGNORECASE)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?:[ -]?[0-9A-Z]{4}){2,7}(?:[ -]?[0-9A-Z]{1,3})?(?!\w)")
_NAMED_IBAN = re.compile(r"IBAN\W{0,3}$", re.IGNORECASE)
_IBAN_LENGTHS = range(15, 35)
_MOST_IBAN = 44
"""Characters of an IBAN with its spaces, at most."""
_BOOK = re.compile(r"(?:ISBN|ISSN|DOI|EAN)\W{0,3}(?:1[03]\W{0,3})?$", re.IGNORECASE)
_DIGITS = re.compile(r"\d[\d(). /-]{6,}", re.ASCII)
_EMAIL_BEFORE, _EMAIL_AFTER = 65, 320
"""Characters before and after the sign "@" that can belong to an address."""
_SEVEN_COLONS = 7
_IP4_DOTS = 3

_Finder = Callable[[str], list[re.Match[str]]]


class Masker:
    """Replaces personal data in texts.

    Args:
        config: which kinds are replaced, and by what.
    """

    def __init__(self, config: MaskConfig) -> None:
        finders: tuple[tuple[str, str | None, tuple[_Finder, ...]], ...] = (
            ("email", config.email, (_emails,)),
            ("ip", config.ip, (_ip4s, _ip6s)),
            ("phone", config.phone, (_phones,)),
        )
        self._kinds = [
            (kind, replacement, finder)
            for kind, replacement, several in finders
            if replacement is not None
            for finder in several
        ]

    @property
    def active(self) -> bool:
        """True if any kind is replaced."""
        return bool(self._kinds)

    def mask(self, text: str, counts: Counter[str], examples: list[tuple[str, str]]) -> str:
        """Return the text with its personal data replaced; the same object if it has none.

        Args:
            text: a cleaned text.
            counts: number of replacements by kind, which are added to.
            examples: (kind, surroundings) of the first replacement of each kind are added; in them,
                letters of the personal data are shown as x and digits as 0, and other personal data
                are replaced.
        """
        for kind, replacement, find in self._kinds:
            if matches := find(text):
                counts[kind] += len(matches)
                examples.append((kind, self._shown(matches[0])))
                text = _replaced(text, matches, replacement)
        return text

    def _shown(self, match: re.Match[str]) -> str:
        text, (start, end) = match.string, match.span()
        hidden = "".join("0" if c.isdigit() else "x" if c.isalpha() else c for c in match[0])
        before = self._masked(text[max(0, start - _MASKED_CONTEXT) : start])[-CONTEXT:]
        return f"{before}{hidden}{self._masked(text[end : end + _MASKED_CONTEXT])[:CONTEXT]}"

    def _masked(self, text: str) -> str:
        for _, replacement, find in self._kinds:
            text = _replaced(text, find(text), replacement)
        return text


def _replaced(text: str, matches: list[re.Match[str]], replacement: str) -> str:
    pieces, done = [], 0
    for match in matches:
        pieces += [text[done : match.start()], replacement]
        done = match.end()
    return "".join([*pieces, text[done:]])


def _before(match: re.Match[str]) -> str:
    start = max(0, match.start() - _BEFORE)
    return (" " if start == 0 else "") + match.string[start : match.start()]


def _emails(text: str) -> list[re.Match[str]]:
    matches: list[re.Match[str]] = []
    done, at = 0, text.find("@")
    while at >= 0:
        # Patterns are slow, so they see no more than the surroundings.
        start, end = max(done, at - _EMAIL_BEFORE), at + _EMAIL_AFTER
        if match := _EMAIL.search(text, start, end):
            matches.append(match)
            done = match.end()
        at = text.find("@", max(done, at + 1))
    return matches


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """Yield where digits stand close together; for speed, most text is seen by this pattern only."""
    for match in _DIGITS.finditer(text):
        yield max(0, match.start() - 2), match.end()


def _ip4s(text: str) -> list[re.Match[str]]:
    if text.count(".") < _IP4_DOTS:
        return []
    found = (m for start, end in _stretches(text) for m in _IP4.finditer(text, start, end + 2))
    return [match for match in found if _is_public_ip4(match)]


def _ip6s(text: str) -> list[re.Match[str]]:
    if "::" not in text and text.count(":") < _SEVEN_COLONS:
        return []
    return [match for match in _IP6.finditer(text) if _is_public_ip6(match)]


def _phones(text: str) -> list[re.Match[str]]:
    found = (
        match
        for start, end in _stretches(text)
        if sum(map(str.isdigit, text[start:end])) >= _PHONE_DIGITS.start
        for match in _PHONE.finditer(text, start, end + 2)
    )
    return [match for match in found if _is_phone(match)]


def _is_public_ip4(match: re.Match[str]) -> bool:
    """Return True for the address of a host, and False for a version, a section or a network.

    1.2.3.4, 12.0.0.1 and 12.4.1.0 are taken for one of these. See also `_VERSION`.
    """
    octets = [*map(int, match[0].split("."))]
    if max(octets) <= _LARGEST_DIGIT or octets[-1] == 0 or octets.count(0) > 1:
        return False
    if _VERSION.search(_before(match)) or _AFTER_VERSION.match(match.string, match.end()):
        return False
    return ipaddress.IPv4Address(match[0]).is_global


def _is_public_ip6(match: re.Match[str]) -> bool:
    """Only global unicast addresses, which start with 2 or 3: ``a::b`` is no address."""
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return address in _GLOBAL_UNICAST and address.is_global


def _is_phone(match: re.Match[str]) -> bool:
    number = match[0]
    if sum(map(str.isdigit, number)) not in _PHONE_DIGITS or _is_in_iban(match):
        return False
    if _PAIRS.fullmatch(number):
        return not _continues(match) and not _counts_up(number)
    if _DATE.match(number):
        return False
    before = _before(match)
    if _ZIP.fullmatch(number):
        return bool(_CALL.search(before))
    return not _BOOK.search(before)


def _continues(match: re.Match[str]) -> bool:
    """Return True if further numbers are before or after a number, as in the date 2024 01 15 12 30 45."""
    text, (start, end) = match.string, match.span()
    return bool(
        _ENDS_WITH_NUMBER.search(text[max(0, start - 2) : start]) or _NUMBER.match(text, end)
    )


def _counts_up(number: str) -> bool:
    """Return True for consecutive numbers, such as 05 06 07 08 09."""
    pairs = [int(number[at : at + 2]) for at in range(0, len(number), 3)]
    return pairs == [*range(pairs[0], pairs[0] + len(pairs))]


def _is_in_iban(match: re.Match[str]) -> bool:
    """Return True if a number is inside an international bank account number (ISO 13616).

    It has a valid checksum, or the word IBAN before it.
    """
    text, start = match.string, match.start()
    for iban in _IBAN.finditer(text, max(0, start - _MOST_IBAN), match.end() + _MOST_IBAN):
        if iban.start() <= start < iban.end():
            # The groups behind it may be other numbers.
            ends = [m.start() for m in re.finditer("[ -]", iban[0])]
            candidates = (iban[0][:end] for end in (*ends, len(iban[0])))
            return bool(_NAMED_IBAN.search(_before(iban))) or any(
                _is_iban(re.sub("[ -]", "", one))
                for one in candidates
                if iban.start() + len(one) > start
            )
    return False


def _is_iban(text: str) -> bool:
    """Return True if the checksum of ISO 7064 (MOD 97-10) is valid, without spaces."""
    if len(text) not in _IBAN_LENGTHS:
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1
