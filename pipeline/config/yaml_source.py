"""Parse YAML files and overrides into a tree of values with their source positions.

The values follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, section 10.3): `on` and
`no` are text, and `1e-3` is a number. Anchors, aliases and tags are refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from preprocess.errors import hidden, one_line

CORE_SCHEMA = [
    (f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"))
    for name, pattern in {
        "null": r"~|null|Null|NULL|",
        "bool": r"true|True|TRUE|false|False|FALSE",
        "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
        "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    }.items()
]


@dataclass(frozen=True, order=True)
class Position:
    """A source position; positions sort in the order of files and overrides, then lines.

    Attributes:
        layer: index of the file or override.
        line: line number from 1, or 0 if there is none.
        source: the file's path, or the override.
    """

    layer: int
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Node:
    """A value of the tree.

    Attributes:
        value: the scalar, or the nodes of a mapping or list.
        place: position of the value.
        key: position of its key.
        text: the scalar as written, if it has no quotes.
    """

    value: "str | int | float | bool | dict[str, Node] | list[Node] | None"
    place: Position
    key: Position
    text: str | None = None


KeyPath = tuple[str | int, ...]
Problems = list[tuple[Position, str]]
"""Mistakes found so far: the position and the message of each."""
UNPLACED = Position(2**31, 0, "")
"""Position of a value that no file or override sets; sorts last."""
EMPTY = Node({}, UNPLACED, UNPLACED)
"""A section in which nothing is set."""


MAX_BYTES = 1 << 20
"""A larger file is no config, and parsing it takes long."""


MAX_DIGITS = 100
"""A longer scalar is read as text, not as a number."""
MAX_NUMBER = 2**63 - 1
"""The largest whole number that arrays, files and engines can hold."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {None: CORE_SCHEMA}  # noqa: RUF012 (as yaml declares it)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not supported"
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)  # type: ignore[arg-type]
        return super().compose_node(parent, index)


def read_file(path: Path, layer: int, problems: Problems) -> Node | None:
    """Return the tree of a file, or None after adding the reason to ``problems``."""
    place = Position(layer, 1, str(path))
    text = ""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            problems.append(
                (replace(place, line=0), f"not a config: it has more than {MAX_BYTES:,} bytes")
            )
            return None
        text = data.decode("utf-8")
        root = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        problems.append((replace(place, line=0), f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        place = replace(place, line=data.count(b"\n", 0, error.start) + 1)
        problems.append((place, f"byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8"))
    except yaml.reader.ReaderError as error:
        place = replace(place, line=text.count("\n", 0, error.position) + 1)
        problems.append(
            (
                place,
                f"not valid YAML: the character U+{int(error.character):04X} is not allowed",
            )
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        assert mark is not None
        problems.append((replace(place, line=mark.line + 1), _syntax(error, text)))
    except RecursionError:
        problems.append((place, "not a config: nested too deeply"))
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        problems.append((place, f"not valid YAML: an escape sequence is not a character ({error})"))
    else:
        if root is None:
            problems.append((place, "the file is empty: it must hold sections such as 'prepare:'"))
        elif not isinstance(root, yaml.MappingNode):
            what = "must hold sections such as 'prepare:', not a list or a single value"
            problems.append((replace(place, line=root.start_mark.line + 1), what))
        else:
            return _tree(root, lambda node: replace(place, line=node.start_mark.line + 1), problems)
    return None


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    hints = {"\t": "indent with spaces, not tabs"}
    hints |= {sign: f"put quotes around text that begins with {sign}" for sign in "*&!%@`|>"}
    if error.problem == "mapping values are not allowed here":
        hints[":"] = "put quotes around text that contains a colon, or correct the indentation"
    marks = [mark for mark in (error.context_mark, error.problem_mark) if mark]
    signs = [text[mark.index] for mark in marks if mark.index < len(text)]
    what = error.problem
    if error.context and error.context_mark:
        what = f"{error.context} from line {error.context_mark.line + 1}, {error.problem}"
    return f"not valid YAML: {next((hints[sign] for sign in signs if sign in hints), what)}"


def read_override(argument: str, layer: int, problems: Problems) -> Node:
    """Return the tree of an argument ``key.path=value``; mistakes are added to ``problems``."""
    place = Position(layer, 0, f"override '{one_line(hidden(argument))}'")
    name, equals, text = argument.partition("=")
    text = text.strip()
    keys = name.strip().split(".")
    if not equals or not all(keys):
        problems.append((place, "must be key.path=value, such as train.steps=1000"))
        return Node({}, place, place)
    if not text:
        problems.append(
            (place, f"no value: write {name}=null for null, {name}='\"\"' for empty text")
        )
        return Node({}, place, place)
    node = Node(text, place, place)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        problems.append((place, "nested too deeply"))
    except (ValueError, OverflowError) as error:
        problems.append((place, f"an escape sequence is not a character ({error})"))
    except yaml.YAMLError as error:
        # `*.txt` is meant as text; `[*.txt, b]` is meant as a list and lacks quotes.
        if (text[0], text[-1]) in {("[", "]"), ("{", "}")}:
            what = str(error)
            if isinstance(error, yaml.MarkedYAMLError):
                what = _syntax(error, text)
            elif isinstance(error, yaml.reader.ReaderError):
                code = f"{int(error.character):04X}"
                what = (
                    f"the character U+{code} is not allowed in a list or mapping; write it in double "
                    f"quotes as \\u{code}"
                )
            problems.append((place, what))
            return Node({}, place, place)
    else:
        # Otherwise it is text that YAML cuts at a `#`, or reads as a block such as `installed-docs:`.
        whole = root and (root.start_mark.index, root.end_mark.index) == (0, len(text))
        if root is not None and whole and getattr(root, "flow_style", True):
            node = _tree(root, lambda _: place, problems, ".".join(keys))
    for key in reversed(keys):
        node = Node({key: node}, place, place)
    return node


def _tree(
    node: yaml.Node,
    place: Callable[[yaml.Node], Position],
    problems: Problems,
    name: str = "",
    key: Position | None = None,
) -> Node:
    here = place(node)
    key = key or here
    if isinstance(node, yaml.ScalarNode):
        value = _scalar(node)
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            limit = f"at most {MAX_NUMBER:,}" if value > 0 else f"at least {-MAX_NUMBER:,}"
            problems.append((here, f"{name}: must be {limit}, not {node.value[:60]}"))
            value = node.value
        return Node(value, here, key, node.value if node.style is None else None)
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        entries = [_tree(item, place, problems, f"{name}[{i}]") for i, item in items]
        return Node(entries, here, key)
    mapping: dict[str, Node] = {}
    for key_node, value in node.value:
        at = place(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append((at, "a key must be a word; put quotes around text that begins with {"))
            continue
        inner = f"{name}.{key_node.value}" if name else key_node.value
        if key_node.value in mapping:
            first = mapping[key_node.value].key
            first_line = f", first in line {first.line}" if first.line else ""
            problems.append((at, f"'{inner}' is set twice{first_line}"))
        mapping[key_node.value] = _tree(value, place, problems, inner, at)
    return Node(mapping, here, key)


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if len(text) > MAX_DIGITS:
        return text
    try:
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0 if text[:2] in ("0x", "0o") else 10)
            case "float":
                return float(re.sub(r"\.(?=[inIN])", "", text))
    except ValueError:
        pass
    return text
