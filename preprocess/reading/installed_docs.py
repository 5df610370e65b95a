"""The documentation of installed Python packages as a corpus, for a first run without a download.

The docstrings of the standard library, NumPy and torch are found by path and parsed with `ast`; no
code is imported or executed. Prose is recognised by its form (sentence punctuation, share of words
made of letters), not by a word list.
"""

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from preprocess.files.search.found import FileInfo

_PACKAGES = ("numpy", "torch")
# Tests, third-party packages, and generated or internal code with hardly any prose.
_EXCLUDED = {
    *("test", "tests", "testing", "idlelib", "turtledemo", "lib2to3", "ensurepip"),
    *("site-packages", "dist-packages", "__pycache__", "_vendor"),
}

_MIN_WORDS = 5
_LETTERS_SHARE = 0.8

_ROLE = re.compile(r"(?<!\w):[a-z][\w:+-]*:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LITERAL = re.compile(r"``(.+?)``")
_REFERENCE = re.compile(r"`([^`<]+?)(?:\s*<[^`>]*>)?`_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}(?=\S)([^*]+?)(?<=\S)\*{1,2}(?![\w*])")
_FOOTNOTE = re.compile(r"\s*\[[\w#*]+\]_")
_DIRECTIVE = re.compile(r"\.\. [\w:-]+::\s*")
_FIELD = re.compile(r":\w+(?: [^:`]+)?:(?:\s+|$)")
_BULLET = re.compile(r"(?:[-*+•]|\(?(?:\d{1,2}|[a-z])[.)])\s+")
_HEADING = re.compile(r"[\w ]{1,24}:$")
_NUMPY_PARAMETER = re.compile(r"\*{0,2}[\w.*]+(?:, \*{0,2}\w+)* : \S")
_TYPED = re.compile(r"[`*]{0,2}\w+[`*]{0,2} ?\([^()]*(?:\([^()]*\)[^()]*)*\): +(?=\S)")
_UNTYPED = re.compile(r"[`*]{0,2}\w+[`*]{0,2}: +(?=\S)")
_UNDERLINE = re.compile(r"([^\w\s])\1{2,}$")
# Placeholders, LaTeX, tables, comparisons and arrows: a sentence with one of these is not prose.
_CODE = re.compile(r"[{}\\|<>^$]|%\(|::|==| = |\w\[|=\w+,|\(\w+=")
_EDGE = "\"'`.,;:!?()[]“”‘’*—–-…"
_INNER = re.compile(r"['’./-]")


def list_files() -> list[FileInfo]:
    """Return the Python sources of the standard library, NumPy and torch, ordered by name.

    Names such as ``stdlib/argparse.py`` or ``torch/nn/modules/rnn.py`` are the same on every
    machine. Packages that are not installed are left out.
    """
    roots = [("stdlib", Path(sysconfig.get_path("stdlib")))]
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec and spec.submodule_search_locations:
            roots.append((package, Path(spec.submodule_search_locations[0])))
    return sorted(file for name, root in roots for file in _sources(name, root))


def _sources(name: str, root: Path) -> Iterator[FileInfo]:
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each not in _EXCLUDED]
        for file in files:
            if file.endswith(".py"):
                path = Path(folder, file)
                status = path.stat()
                below = path.relative_to(root).as_posix()
                yield FileInfo(
                    f"{name}/{below}", str(path), status.st_size, str(status.st_mtime_ns)
                )


def paragraphs(source: str) -> list[str]:
    """Return the paragraphs of prose in a Python source; empty if it cannot be parsed."""
    return list(_paragraphs(source))


# Cached because one process reads the sources three times (tokenizer, prepare, sample).
@lru_cache(maxsize=4096)
def _paragraphs(source: str) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        texts = [ast.get_docstring(tree, clean=False) or "", *_documentation(tree.body)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(prose for text in texts for prose in _prose(inspect.cleandoc(text)))


def _documentation(body: list[ast.stmt]) -> Iterator[str]:
    """Yield docstrings and strings attached as documentation, in statements and nested ones."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if docstring := ast.get_docstring(node, clean=False):
                    yield docstring
                yield from _documentation(node.body)
            case ast.If() | ast.Try() | ast.With():
                yield from _documentation(node.body)
                yield from _documentation(getattr(node, "orelse", []))
            case ast.Expr(value=ast.Call() as call) | ast.Assign(value=ast.Call() as call):
                # add_newdoc(...), add_docstr(...), _add_docstr(...) and similar.
                if "doc" in ast.unparse(call.func):
                    yield from (_constants(argument) for argument in call.args)
            case ast.Assign(targets=[ast.Attribute(attr="__doc__")], value=value):
                yield _constants(value)
            case ast.Assign(value=ast.Dict(values=values)):
                # Modules such as pydoc_data.topics consist of one dict of texts.
                texts = [_constants(value) for value in values]
                if all(texts):
                    yield from (text for text in texts if "\n" in text)


def _constants(node: ast.expr) -> str:
    """Return the constant text of a string expression: concatenated, formatted or a tuple."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _constants(left) + _constants(right)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _constants(left)
        case ast.Call(func=ast.Attribute(value=value)):
            return _constants(value)
        case ast.Tuple(elts=elements):
            return "\n\n".join(_constants(element) for element in elements)
    return ""


def _prose(text: str) -> Iterator[str]:
    for paragraph in _split(text.expandtabs()):
        plain = _plain(paragraph)
        if _is_prose(plain):
            yield plain


def _split(text: str) -> Iterator[str]:
    """Yield each paragraph as one line; blank lines, dedents, items, fields and headings end it."""
    lines: list[str] = []
    previous = 0
    literal: int | None = None
    example = False
    for line in [*text.split("\n"), ""]:
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if content and literal is not None and indent > literal:
            continue
        if content:
            literal = indent if content.endswith("::") else None
        # An example and its output end at a blank line.
        example = bool(content) and (example or content.startswith(">>>"))
        underline = bool(_UNDERLINE.match(content))
        dropped = (
            not content
            or example
            or underline
            or _HEADING.match(content)
            or _NUMPY_PARAMETER.match(content)
        )
        # Within a sentence, a wrapped line may start with a word and a colon.
        closed = indent != previous or not lines or lines[-1].endswith((".", ":"))
        markers = [_BULLET, _FIELD, _DIRECTIVE, _TYPED, *([_UNTYPED] if closed else [])]
        marked = any(marker.match(content) for marker in markers)
        if dropped or marked or indent < previous:
            # A line directly above an underline is a title.
            if lines and not underline:
                yield " ".join(lines)
            lines = []
        previous = indent
        if not dropped:
            for marker in markers:
                match = marker.match(content)
                content = content[match.end() :] if match else content
            lines.append(content)


def _plain(text: str) -> str:
    """Remove the markup of reStructuredText and repeated spaces."""
    for mark in (_ROLE, _LITERAL, _REFERENCE, _EMPHASIS):
        text = mark.sub(r"\1", text)
    return " ".join(_FOOTNOTE.sub("", text).split())


def _is_prose(text: str) -> bool:
    words = text.split()
    if len(words) < _MIN_WORDS or not text.rstrip("\"')”’").endswith((".", "!", "?")):
        return False
    if not (text[0].isalpha() or text[0] in "\"'(“‘") or _CODE.search(text):
        return False
    letters = sum(_INNER.sub("", word.strip(_EDGE)).isalpha() for word in words)
    return letters >= _LETTERS_SHARE * len(words)
