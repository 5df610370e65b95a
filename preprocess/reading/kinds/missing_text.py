"""The reason why records or files have no text, for the error of a stage that found none."""

from collections.abc import Sequence

from preprocess.config import Source
from preprocess.errors import UserError
from preprocess.reading.byte_range import NOT_TEXT
from preprocess.reading.formats.fields import Fields, is_of
from preprocess.reading.kinds.json_shape import scan
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.text.config import CleaningConfig

MOST_UNITS = 4
"""Units that are read to find a record without text."""


def why_no_text(units: Sequence[Unit], sources: Sequence[Source], remedy: str = "") -> str:
    """Return a clause that names the first record without text and its keys, such as
    "; a.jsonl:0 has no 'text', its keys are 'body', 'id'; set text_field on its source".

    Args:
        units: the units in which no text was found.
        sources: the sources, to which `Unit.source` refers.
        remedy: what to do if a record has no text, in place of a setting of its source.

    Returns:
        If there is no such record, a clause about the first file that is not text. If there is none
        either, an empty string.
    """
    other = ""
    for unit in units[:MOST_UNITS]:
        source = sources[unit.source]
        try:
            for block in read_unit(unit, source, CleaningConfig(), Limits(skip_damaged=True)):
                for record in block.rejected:
                    if record.reason == "missing_text_field":
                        # An excerpt has the first keys, also of a long record.
                        keys = scan(record.excerpt).keys
                        paths = Fields.of(source).paths
                        lacks = [path for path in paths if not any(is_of(path, k) for k in keys)]
                        wanted = " and ".join(f"'{path}'" for path in lacks or paths)
                        found = f"; {record.where} has no {wanted}"
                        if names := ", ".join(f"'{key}'" for key in keys):
                            found += f", its keys are {names}"
                        key = "text_field" if source.template is None else "template"
                        return f"{found}; {remedy or f'set {key} on its source'}"
                    if record.reason == NOT_TEXT and not other:
                        other = f"; {record.excerpt}"
        except (UserError, OSError):
            continue
    return other
