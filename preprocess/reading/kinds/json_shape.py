"""Recognition of JSON from the beginning of a text: JSON Lines, or a document that is not.

A JSON document is an array, or an object over several lines. Read line by line, its brackets and keys
would be text. A prefix is checked with a scanner of its own, because a JSON parser needs the whole
document.
"""

import json
import re
from typing import Any, Literal, NamedTuple

from preprocess.reading.formats.fields import is_of, value_of

_SPACE = re.compile(r"[ \t\r\n]*+")
_TOKEN = re.compile(
    r'"(?:[^"\\\n]++|\\[^\n])*+"|-?\d[\d.eE+-]*+|true|false|null|NaN|-?Infinity|[\[\]{},:]'
)
_CUT_STRING = re.compile(r'"(?:[^"\\\n]++|\\[^\n])*+\\?')
_OBJECTS = re.compile(r":\s*\[\s*\{")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_DEEPEST = 500
"""Largest depth of nesting. Parsers of JSON have such limits too."""
_FOLLOWING = 4096
"""Characters examined after the first line."""
_LONGEST = 1 << 20
"""Characters of a first line that are scanned, because a scan is slow."""

Shape = Literal["lines", "document"]


class Scan(NamedTuple):
    """The JSON array or object at the start of a text.

    Attributes:
        state: "whole" if a whole array or object is at the start, "cut" if the text ends inside one,
            "invalid" if it is not JSON.
        end: index after the array or object, if it is whole.
        several_lines: True if a line ends between two of its tokens.
        structured: True if it contains a string or an inner object.
        keys: its keys, if it is an object.
    """

    state: Literal["whole", "cut", "invalid"]
    end: int
    several_lines: bool
    structured: bool
    keys: list[str]


def scan(text: str) -> Scan:
    """Read the array or object at the start of a text, as far as the text goes."""
    stack: list[str] = []
    several_lines = structured = False
    keys: list[str] = []
    expected, position = "value", 0
    while True:
        spaces = _SPACE.match(text, position)
        assert spaces
        position = spaces.end()
        token = _TOKEN.match(text, position)
        if token is None:
            rest = text[position : position + 16]
            cut = not rest or any(word.startswith(rest) for word in _WORDS) or rest == "-"
            cut = cut or _CUT_STRING.fullmatch(text, position) is not None
            state: Literal["cut", "invalid"] = "cut" if cut and stack else "invalid"
            return Scan(state, position, several_lines, structured, keys)
        first = token[0][0]
        expected = _next(expected, first, stack)
        if not expected or len(stack) > _DEEPEST:
            return Scan("invalid", position, several_lines, structured, keys)
        several_lines = several_lines or "\n" in spaces[0]
        position = token.end()
        structured = structured or first == '"' or (first == "{" and len(stack) > 1)
        if expected == "colon" and len(stack) == 1:
            keys.append(token[0][1:-1])
        if not stack:
            return Scan("whole", position, several_lines, structured, keys)


def _next(expected: str, first: str, stack: list[str]) -> str:
    """Return what may follow a token, or "" if the token is wrong; update the open brackets.

    Args:
        expected: what may be at the token's place: "value", "item" (a value or the end of an empty
            array), "key", "member" (a key or the end of an empty object), "colon", or "comma" (or the
            end of the array or object).
        first: the first character of the token.
        stack: the open brackets.
    """
    if first in "]}":
        opened = {"]": "[", "}": "{"}[first]
        empty = "item" if first == "]" else "member"
        if expected not in ("comma", empty) or not stack or stack.pop() != opened:
            return ""
        return "comma"
    if expected in ("value", "item"):
        if first in "[{":
            stack.append(first)
            return "item" if first == "[" else "member"
        return "comma" if first not in ",:" and stack else ""
    if expected in ("key", "member"):
        return "colon" if first == '"' else ""
    if expected == "colon":
        return "value" if first == ":" else ""
    if first != ",":
        return ""
    return "key" if stack[-1] == "{" else "value"


def is_document(text: str, complete: bool) -> bool:
    """Return True if a text begins with a JSON array, or with an object over several lines.

    Args:
        text: the beginning of a text, or all of it.
        complete: True if it is all of it.
    """
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[")):
        return False
    found = scan(text)
    if found.state == "invalid":
        return False
    if found.several_lines:
        return found.structured
    if text[0] == "{":
        return False
    if found.state == "cut":
        return not complete
    return complete and found.structured and not text[found.end :].strip()


def shape_of(text: str, complete: bool, field: str) -> Shape | None:
    """Return "lines" for JSON Lines, "document" for other JSON, and None for any other text.

    Prose may begin with a bracket, so one line of JSON is not always enough: without the field of the
    text, the second line must be JSON too.

    Args:
        text: the beginning of a text, with its first line if that line is not extremely long.
        complete: True if it is all of the text.
        field: path of the text, see `preprocess.reading.formats.fields`.
    """
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[")):
        return None
    # A byte order mark separates files that were joined without a line end.
    line, end, rest = text.replace("}\ufeff{", "}\n{").partition("\n")
    rest = rest[:_FOLLOWING].lstrip()
    record = _parsed(line)
    if isinstance(record, dict):
        has_text = isinstance(value_of(record, field), str | list)
        if not has_text and not rest and any(map(_is_list_of_objects, record.values())):
            # One line may hold a whole document.
            return "document"
        return "lines" if has_text or not rest or _begins_with(rest, "{") else None
    if isinstance(record, list):
        table = scan(line).structured and _begins_with(rest, "[")
        return "document" if table or is_document(text, complete) else None
    if text[0] == "{" and not end and not complete:
        # A document on one line, or a record longer than any that is read, which is counted as oversized.
        found = scan(line[:_LONGEST])
        if found.state != "cut":
            return None
        has_text = any(is_of(field, key) for key in found.keys)
        return "document" if _OBJECTS.search(line, 0, _LONGEST) and not has_text else "lines"
    if len(line) > _LONGEST:
        return None
    if is_document(text[: len(line) + 1 + _FOLLOWING], complete):
        return "document"
    # Objects that are separated by commas or by nothing.
    first = scan(line)
    if text[0] != "{" or first.state != "whole" or not first.keys:
        return None
    after = line[first.end :].strip().removeprefix(",").lstrip() or rest
    return "document" if _begins_with(after, "{") else None


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _begins_with(text: str, bracket: str) -> bool:
    """Return True if a text begins with this kind of JSON, or ends inside it."""
    return text.startswith(bracket) and scan(text).state != "invalid"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
