"""The text of wikitext, the markup of MediaWiki, without templates, tables, references and links.

Only what readers see as running text is kept: templates are not expanded, so that what they would show
is missing. https://www.mediawiki.org/wiki/Help:Formatting describes the markup.
"""

import html
import re

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Elements without running text. One that is not closed within a bound ends with its line.
_DROPPED = re.compile(
    r"<(ref|math|chem|gallery|timeline|score|syntaxhighlight|source|imagemap|hiero|templatestyles|"
    r"graph|mapframe|indicator|references|inputbox)\b(?:[^<>/]|/(?!>)){0,500}"
    r"(?:/>|>(?:.{0,10000}?</\1\s*>|[^\n]*))",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BRACES = re.compile(r"\{\{|\}\}|\{\||\n\|\}")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_QUOTES = re.compile(r"'{2,}")
_INNER_LINK = re.compile(r"\[\[([^\[\]|]*)(?:\|([^\[\]]*))?\]\]")
_OUTER_LINK = re.compile(
    r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]{1,2000}(?:[ \t]+([^\]\n]{0,1000}))?\]"
)
_HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", re.MULTILINE)
_LIST = re.compile(r"^[*#:;]+[ \t]*", re.MULTILINE)
_RULE = re.compile(r"^-{4,}", re.MULTILINE)
_BLANKS = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_EMPTY_BRACKETS = re.compile(r"[ \t]?\([ \t]*[,;:]*[ \t]*\)")
# Text for several scripts or countries: -{zh-hans:A;zh-hant:B}- or -{A}-. The first one is kept.
_VARIANT = re.compile(r"-\{(?:[^{};:|]{0,40}[:|])?([^{};]{0,1000})(?:;[^{}]{0,3000})?\}-")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,10})?")
_MOST_NESTED = 8
"""Depth of links in captions of links that are resolved."""
HIDDEN = frozenset({"file", "image", "media", "category"})
"""Namespaces in English, in lower case, whose links show no text."""


def plain_text(wikitext: str, hidden: frozenset[str] = HIDDEN) -> str:
    """Return the running text of a page, its paragraphs separated by blank lines.

    Args:
        wikitext: the page.
        hidden: names of the namespaces of files and categories, in lower case.
    """
    text = _COMMENT.sub("", wikitext)
    text = _DROPPED.sub("", text)
    text = _without_braces(text)
    text = _BREAK.sub("\n", text)
    text = _TAG.sub("", text)
    text = _VARIANT.sub(r"\1", text) if "-{" in text else text
    text = _without_links(text, hidden)
    text = _OUTER_LINK.sub(lambda link: link[1] or "", text)
    text = _QUOTES.sub("", text)
    text = _SWITCH.sub("", text)
    text = _HEADING.sub(r"\2", text)
    text = _LIST.sub("", text)
    text = _RULE.sub("", text)
    text = html.unescape(text) if "&" in text else text
    text = _SPACES.sub(" ", text)
    text = _EMPTY_BRACKETS.sub("", text)
    return _BLANKS.sub("\n\n", text).strip()


def _without_braces(text: str) -> str:
    """Return the text without templates and tables, which may be nested.

    Braces without a partner are left out alone, so that no text behind them is lost.
    """
    open_: list[tuple[str, int, int]] = []  # kind, place in the text, number of pieces before
    pieces: list[str] = []
    at = 0
    for match in _BRACES.finditer(text):
        kind = match[0]
        if kind in ("{{", "{|"):
            pieces.append(text[at : match.start()])
            open_.append((kind, match.end(), len(pieces)))
            at = match.end()
            continue
        partner = "{{" if kind == "}}" else "{|"
        depth = next((i for i in range(len(open_) - 1, -1, -1) if open_[i][0] == partner), None)
        if depth is None:
            if kind == "}}":
                pieces.append(text[at : match.start()])
                at = match.end()
            continue
        _, _, number = open_[depth]
        del open_[depth:], pieces[number:]
        at = match.end()
    pieces.append(text[at:])
    return "".join(pieces)


def _without_links(text: str, hidden: frozenset[str]) -> str:
    """Return the text with the captions of links in place of links, and without files."""
    for _ in range(_MOST_NESTED):
        text, found = _INNER_LINK.subn(lambda link: _caption(link, hidden), text)
        if not found:
            break
    return text.replace("[[", "").replace("]]", "")


def _caption(link: re.Match[str], hidden: frozenset[str]) -> str:
    target, caption = link[1], link[2]
    prefix, colon, _ = target.partition(":")
    if colon and prefix.strip().lower() in hidden:
        return ""
    if caption is None:
        # Of links to the same article in other languages, nothing is shown.
        return "" if colon and _LANGUAGE.fullmatch(prefix) else target.lstrip(":")
    return caption.rpartition("|")[2] or target.lstrip(":")
