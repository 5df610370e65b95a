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

_EMAIL = re.compile(
    # Before the sign, only what addresses have in practice: "/" and "=" are parts of URLs around them.
    r"(?<![\w.+-])\w[\w.%+'-]{0,63}@"
    r"(?:\w(?:[\w-]{0,61}\w)?\.)+(?!(?i:png|jpe?g|gif|svg|webp)\b)[^\W\d_]{2,24}(?![\w@])"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP4 = re.compile(rf"(?<![\w.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.\d)", re.ASCII)
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])", re.ASCII)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_VERSION = re.compile(r"(?:version|release|ver\.|\bv\.?|section|§)\W{0,3}$", re.IGNORECASE)
_LARGEST_DIGIT = 9

_PHONE = re.compile(
    # International: +49 30 901820, +1 (555) 123-4567
    r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w-]|[.,]\d)"
    # North America: (555) 234-5678, 555-234-5678, 555.234.5678
    r"|(?<![\w.,/+-])(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d-|[2-9]\d\d\.)[2-9]\d\d[-.]\d{4}(?![\w-]|[.,]\d)"
    # With a trunk prefix: 030 901820-15, (020) 7946 0958, 0171/2345678
    r"|(?<![\w.,/+-])\(?0\d{1,4}\)?[ /-]\d{2,8}(?:[ -]\d{2,6}){0,4}(?![\w-]|[.,/]\d)",
    re.ASCII,
)
_PHONE_DIGITS = range(9, 16)
_DATE = re.compile(r"\(?\d{1,2}\)?[ /-]\d{1,2}[ /-]\d{2,4}\b", re.ASCII)
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
                letters of the personal data are shown as x and digits as 0.
        """
        for kind, replacement, find in self._kinds:
            if matches := find(text):
                counts[kind] += len(matches)
                examples.append((kind, _shown(matches[0])))
                text = _replaced(text, matches, replacement)
        return text


def _replaced(text: str, matches: list[re.Match[str]], replacement: str) -> str:
    pieces, done = [], 0
    for match in matches:
        pieces += [text[done : match.start()], replacement]
        done = match.end()
    return "".join([*pieces, text[done:]])


def _shown(match: re.Match[str]) -> str:
    text, (start, end) = match.string, match.span()
    hidden = "".join("0" if c.isdigit() else "x" if c.isalpha() else c for c in match[0])
    return f"{text[max(0, start - CONTEXT) : start]}{hidden}{text[end : end + CONTEXT]}"


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - CONTEXT) : match.start()]


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
    """Numbers of versions and sections have the same form: 1.2.3.4 is taken for one of these."""
    octets = [*map(int, match[0].split("."))]
    if max(octets) <= _LARGEST_DIGIT or _VERSION.search(_before(match)):
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
    digits = sum(map(str.isdigit, match[0]))
    if digits not in _PHONE_DIGITS or _DATE.match(match[0]):
        return False
    return not _BOOK.search(_before(match))
