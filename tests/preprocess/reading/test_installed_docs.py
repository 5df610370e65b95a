"""Extraction of prose from Python sources."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from preprocess.reading import installed_docs
from preprocess.reading.installed_docs import list_files, paragraphs


def test_installed_sources_are_listed_in_order_without_imports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "probe_docs"
    (package / "tests").mkdir(parents=True)
    for name in ("__init__.py", "b.py", "a.py", "tests/c.py", "data.txt"):
        (package / name).write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installed_docs, "_PACKAGES", ("probe_docs", "no_such_package"))
    files = list_files()
    names = [file.name for file in files]
    assert names == sorted(names)
    assert [name for name in names if not name.startswith("stdlib/")] == [
        "probe_docs/__init__.py",
        "probe_docs/a.py",
        "probe_docs/b.py",
    ]
    assert {"stdlib/argparse.py", "stdlib/pydoc_data/topics.py"} <= set(names)
    assert not any(
        part in name for name in names for part in ("site-packages", "/test/", "idlelib")
    )
    assert "probe_docs" not in sys.modules
    argparse = files[names.index("stdlib/argparse.py")]
    assert argparse.bytes == Path(argparse.path).stat().st_size


def test_docstrings_of_modules_classes_and_functions_are_found_in_order() -> None:
    source = '''"""The module speaks first about its purpose."""
class A:
    """The class comes second in this source."""
    async def f(self):
        """A method of the class comes third."""
        def g(): """A function within it comes last."""
if True:
    def h():
        """Conditional functions are documented as well."""
x = """A string that is no docstring stays out."""
'''
    assert paragraphs(source) == [
        "The module speaks first about its purpose.",
        "The class comes second in this source.",
        "A method of the class comes third.",
        "A function within it comes last.",
        "Conditional functions are documented as well.",
    ]


def test_strings_attached_as_documentation_are_found() -> None:
    source = '''
add_newdoc('numpy', 'ndarray', ('flat', """This iterates over all of the array."""))
f = _add_docstr(_C.f, r"""
f(x) -> Tensor

This gives back all """ + r"""of the values at once.
""".format(**common))
torch._C._add_docstr(g, """This one is formatted with a percent sign.""" % args)
A.__doc__ = """An attribute can be the documentation too."""
topics = {'a': """This topic is about
the assert statement.""", 'b': 'A text in one line is no topic of its own.'}
print("""A string for another function is not documentation.""")
'''
    assert paragraphs(source) == [
        "This iterates over all of the array.",
        "This gives back all of the values at once.",
        "This one is formatted with a percent sign.",
        "An attribute can be the documentation too.",
        "This topic is about the assert statement.",
    ]


def prose(docstring: str) -> list[str]:
    return paragraphs(repr(docstring))


def test_markup_is_removed() -> None:
    assert prose(
        "See :func:`~torch.abs` and :ref:`this note <x-y>`, **always** with ``out`` or\n"
        "    `the page <https://example.org>`_ that *all* people read [1]_."
    ) == ["See torch.abs and this note, always with out or the page that all people read."]


def test_only_prose_is_kept() -> None:
    assert prose("""
Title of the Section
====================
The first sentence is wrapped and
goes on in the second line.

    >>> print("This is an example that should not be kept.")
    This is the output of the example above.

Parameters
----------
x : int, optional, which should be left out too.
    The description of the parameter is prose.
y (int): another description of a parameter that
    is wrapped with a hanging indent.
Returns:
    The value is whatever was asked for.

Here is a block::

    This is literal code in the block above.

    And so is this one behind a blank line.

- The first item of a short list.
- The second item of a short list.

.. note:: This is a note about all of it.

:param x: The field has a description too.

    An indented sentence ends before the margin.
At the margin another paragraph begins with a
word: a wrapped line may start like that.

This title looks like a sentence of prose.
------------------------------------------

Math like {x} or \\\\alpha in here is not prose.

This table | has words in | all of its cells.

Rows of 1 2 3 4 5 6 7 are numbers.

Far too short.

A sentence without an end is not kept either
""") == [
        "The first sentence is wrapped and goes on in the second line.",
        "The description of the parameter is prose.",
        "another description of a parameter that is wrapped with a hanging indent.",
        "The value is whatever was asked for.",
        "The first item of a short list.",
        "The second item of a short list.",
        "This is a note about all of it.",
        "The field has a description too.",
        "An indented sentence ends before the margin.",
        "At the margin another paragraph begins with a word: a wrapped line may start like that.",
    ]


@pytest.mark.parametrize("source", ["def", "\x00", "(" * 500])
def test_a_source_that_cannot_be_parsed_gives_nothing(source: str) -> None:
    assert paragraphs(source) == []


def test_a_source_with_an_invalid_escape_gives_its_prose_without_a_warning() -> None:
    source = "'A sentence in front of an invalid escape.'\nx = '\\d'\n1 is 1"
    assert paragraphs(source) == ["A sentence in front of an invalid escape."]


def test_the_standard_library_is_a_corpus() -> None:
    spec = find_spec("pydoc_data.topics")
    assert spec is not None
    assert spec.origin is not None
    found = paragraphs(Path(spec.origin).read_text(encoding="utf-8"))
    assert len(found) > 500
    assert all("\n" not in each and "``" not in each for each in found)
