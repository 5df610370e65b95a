"""A reader of pages, and the text that tries to break out of its place."""

from html.parser import HTMLParser

import pytest

EVIL = "<script>alert('x')</script>&\"שלום"
VOID = ("meta", "br", "wbr")


class Markup(HTMLParser):
    """The elements of a page; fails if one is not closed or is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for number in self._open:
            self.elements[number][2].append(data)

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _, _ in self.elements]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of each element of a kind."""
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def texts(self, tag: str, style: str | None = None) -> list[str]:
        """Text of each element of a kind, with runs of whitespace as one space."""
        return [
            " ".join("".join(text).split())
            for name, attributes, text in self.elements
            if name == tag and (style is None or attributes.get("class") == style)
        ]

    def text_of(self, tag: str) -> str:
        (text,) = self.texts(tag)
        return text

    def rows(self, label: str) -> list[list[str]]:
        """Cells of each row, the header's first, of the table with this label."""
        start = next(n for n, one in enumerate(self.elements) if one[1].get("aria-label") == label)
        found: list[list[str]] = []
        for tag, attributes, text in self.elements[start + 1 :]:
            if "aria-label" in attributes:
                break
            if tag == "tr":
                found.append([])
            elif tag in ("td", "th"):
                found[-1].append(" ".join("".join(text).split()))
        return found

    def section(self, heading: str) -> str:
        """Text of the section with this heading."""
        return next(text for text in self.texts("section") if text.startswith(heading))

    @property
    def facts(self) -> dict[str, str]:
        """What the head of the page says."""
        return dict(zip(self.texts("dt"), self.texts("dd"), strict=True))


@pytest.fixture
def markup() -> type[Markup]:
    return Markup


@pytest.fixture
def evil() -> str:
    """Text with markup in it, and with letters from right to left."""
    return EVIL
