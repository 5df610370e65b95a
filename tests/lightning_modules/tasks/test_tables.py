"""Any text survives a table."""

import random
import sys

from lightning_modules.tasks.tables import escape_field, read_table, table_bytes


def test_a_table_with_every_character_is_read_back_unchanged() -> None:
    # With lone surrogates, which no encoder writes.
    characters = [*map(chr, range(sys.maxunicode // 8))]
    random.Random(1).shuffle(characters)
    whole = "".join(characters)
    rows = [[whole[start : start + 97], "label"] for start in range(0, len(whole), 97)]
    data = table_bytes(["text", "label"], rows)
    assert read_table(data) == (["text", "label"], rows)
    assert len(data.decode().splitlines()) == len(rows) + 1


def test_fields_that_look_like_escapes_are_read_back_unchanged() -> None:
    rows = [["\\t"], ["\\\\n"], ["\\u0041"], ["\\"], [""]]
    assert read_table(table_bytes(["text"], rows)) == (["text"], rows)


def test_a_field_shows_what_it_escapes() -> None:
    assert escape_field("a\tb\\n\n\u2028\ud800") == r"a\tb\\n\n\u2028\ud800"
