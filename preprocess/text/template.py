"""Templates that make a text of several fields, as in ``"{title}: {body}"``.

``{{`` and ``}}`` stand for braces in the text.
"""

import re

_PIECE = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]+)\}|[{}]|[^{}]+")


def parse_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the literals and the paths of a template, one literal more than there are paths.

    Raises:
        ValueError: the template has no field, or a brace without its partner.
    """
    literals: list[str] = [""]
    paths: list[str] = []
    for match in _PIECE.finditer(template):
        piece = match[0]
        if piece in ("{{", "}}"):
            literals[-1] += piece[0]
        elif match["path"] is not None:
            paths.append(match["path"])
            literals.append("")
        elif piece in ("{", "}"):
            raise ValueError(
                f"the template {template!r} has a single '{piece}'; fields are written as {{name}}, and "
                "a brace in the text as {{ or }}"
            )
        else:
            literals[-1] += piece
    if not paths:
        raise ValueError(
            f"the template {template!r} names no field; write fields in braces, as in "
            '"{title}\\n\\n{body}"'
        )
    return tuple(literals), tuple(paths)
