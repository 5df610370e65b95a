r"""Fields of records, named by paths and joined by templates.

The same paths serve JSON, JSON Lines, Parquet, Arrow and tables:

- ``body.text`` is the field ``text`` of the object ``body``. A key of the whole name, or of a part of
  it with dots, comes first.
- ``messages[].content`` is the field ``content`` of each object in the list ``messages``. The parts
  are joined by line ends. ``paragraphs[]`` is a list of strings. Objects that lack the field, and
  nulls, are left out.

A template has paths in braces, as in ``"{title}\n\n{body}"``; ``{{`` and ``}}`` are braces.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from preprocess.config import Source
from preprocess.text.template import parse_template

MISSING = object()
"""Value of a field that a record lacks."""
MISSING_FIELD, NO_STRING = "missing_text_field", "text_not_a_string"
"""Reasons to reject a record."""
EACH = "[]"
"""Follows the name of a list whose items are meant."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def value_of(record: Any, path: str, missing: Any = None) -> Any:
    """Return the value of a field, or ``missing`` if the record lacks it.

    Args:
        record: a record, usually a dict.
        path: the field; see the module.
        missing: the value that stands for a missing field.

    Returns:
        For a path with ``[]``, the list of its values without nulls; missing if there are none.
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    return _descend(record, path.split("."), missing)


def _descend(value: Any, parts: list[str], missing: Any) -> Any:
    if not parts:
        return value
    if not isinstance(value, dict):
        return missing
    for number in range(len(parts), 0, -1):
        name, rest = ".".join(parts[:number]), parts[number:]
        if name in value:
            found = _descend(value[name], rest, MISSING)
        elif name.endswith(EACH) and isinstance(items := value.get(name[: -len(EACH)]), list):
            found = list(_values(items, rest)) or MISSING
        else:
            continue
        if found is not MISSING:
            return found
    return missing


def _values(items: list[Any], rest: list[str]) -> Iterator[Any]:
    """Yield the values of a field in the items of a list, without nulls; inner lists are flattened."""
    for item in items:
        value = _descend(item, rest, MISSING)
        if isinstance(value, list) and any(part.endswith(EACH) for part in rest):
            yield from value
        elif value is not MISSING and value is not None:
            yield value


def is_of(path: str, root: str) -> bool:
    """Return True if a path leads to a top-level field or into it."""
    return path == root or path.startswith((f"{root}.", f"{root}{EACH}"))


@dataclass(frozen=True)
class Fields:
    """The fields of a record that make its text and its id.

    Attributes:
        literals: the text around the fields of a template; one more than there are paths. For one
            field without a template, two empty strings.
        paths: paths of the fields of the text.
        id_path: path of the id, if any.
        template: True if the fields come from a template. Then numbers are texts, too, and null is an
            empty text.
    """

    literals: tuple[str, ...]
    paths: tuple[str, ...]
    id_path: str | None = None
    template: bool = False

    @staticmethod
    def of(source: Source) -> "Fields":
        """Return the fields that the settings of a source name."""
        if source.template is None:
            return Fields(("", ""), (source.text_field,), source.id_field)
        return Fields(*parse_template(source.template), source.id_field, True)

    @property
    def all_paths(self) -> tuple[str, ...]:
        """The paths of the text and of the id, each once."""
        ids = () if self.id_path is None else (self.id_path,)
        return tuple(dict.fromkeys((*self.paths, *ids)))

    def text(self, record: Any) -> tuple[str, str]:
        """Return the text of a record and an empty string, or an empty text and why it has none.

        Args:
            record: a record, usually a dict.

        Returns:
            The reason is `MISSING_FIELD` if a field does not exist or all are null, and `NO_STRING` if
            one is not a string.
        """
        if not self.template:
            return _text(value_of(record, self.paths[0], MISSING), EACH in self.paths[0])
        pieces = [self.literals[0]]
        present = False
        for path, literal in zip(self.paths, self.literals[1:], strict=True):
            value = value_of(record, path, MISSING)
            if value is not None:
                text, reason = _text(value, EACH in path, numbers=True)
                if reason:
                    return "", reason
                present = True
                pieces.append(text)
            pieces.append(literal)
        return ("".join(pieces), "") if present else ("", MISSING_FIELD)

    def id(self, record: Any) -> str:
        """Return the id of a record; empty if it has none."""
        if self.id_path is None:
            return ""
        value = value_of(record, self.id_path)
        return "" if value is None else str(value)

    def missing(self, record: Mapping[str, Any]) -> list[str]:
        """Return the paths of the text that a record lacks."""
        return [path for path in self.paths if value_of(record, path, MISSING) is MISSING]


def _text(value: Any, each: bool, numbers: bool = False) -> tuple[str, str]:
    """Return a value as text, or why it is none.

    Args:
        value: value of a field.
        each: join the items of a list by line ends.
        numbers: take numbers for texts.
    """
    if isinstance(value, str):
        return value, ""
    if value is MISSING:
        return "", MISSING_FIELD
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), ""
    if each and isinstance(value, list):
        parts = [_text(item, False, numbers) for item in value]
        reason = next((why for _, why in parts if why), "")
        return ("", reason) if reason else ("\n".join(part for part, _ in parts), "")
    return "", NO_STRING


def without_surrogates(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which JSON escapes may contain, by U+FFFD; return their number too."""
    return (text, 0) if text.isascii() else _SURROGATE.subn("\ufffd", text)
