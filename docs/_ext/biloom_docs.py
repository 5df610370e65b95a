"""The Sphinx extension: fills generated pages in, links settings, and reads docstrings as written.

A page asks for a reference by a line of its own: ``<!-- generated: config_reference -->``.
"""

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
NAMES = re.compile(r"^    \w+(?:, \w+)+(?=: )")
"""The names of an entry of ``Args:`` or ``Attributes:`` that has more than one."""


def fill_in(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put the Markdown of the module that a mark names in the place of the mark."""
    content[0] = MARK.sub(lambda mark: importlib.import_module(mark[1]).markdown(), content[0])


class LinkSettings(SphinxPostTransform):
    """Make `train.rows` or `train.rows=64` in running text a link to the reference of the key."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        if self.env.docname.startswith("reference/configuration"):
            return
        places = self.env.get_domain("std").data["objects"]
        for literal in list(self.document.findall(nodes.literal)):
            key = literal.astext().partition("=")[0]
            if isinstance(literal.parent, nodes.reference) or ("confval", key) not in places:
                continue
            page, anchor = places["confval", key]
            builder, docname = self.app.builder, self.env.docname
            link = make_refnode(builder, docname, page, anchor, literal.deepcopy(), key)
            literal.parent.replace(literal, link)


def mark_examples(
    app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]
) -> None:
    """Make the indented examples of a docstring literal blocks, which reST would call quotations.

    Sections such as ``Args:`` are indented too; their heading ends in a single word and a colon.
    Two names of one entry are joined, because napoleon would read the first as a type.
    """
    made: list[str] = []
    within = False
    for number, line in enumerate(lines):
        if names := NAMES.match(line):
            line = names[0].strip().replace(", ", ",\u200b").join(["    ", line[names.end() :]])
        before = lines[number - 1] if number else ""
        indented = line.startswith("    ")
        if indented and not before.strip() and not within and not _in_section(made):
            made += [".. code-block:: python", ""]
            within = True
        elif line.strip() and not indented:
            within = False
        made.append(line)
    lines[:] = made


def _in_section(made: list[str]) -> bool:
    last = next((one for one in reversed(made) if one.strip()), "")
    return last.startswith(" ") or bool(re.fullmatch(r"\w+:", last))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", fill_in)
    # Before napoleon, which reads what this leaves.
    app.connect("autodoc-process-docstring", mark_examples, priority=400)
    app.add_post_transform(LinkSettings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
