"""How names are shown in messages."""

from preprocess.errors import one_line, printable


def test_control_characters_are_reported_as_escapes() -> None:
    name = "a\x1b[31m\r\x00\ud800é\u3000\u2028\u202e\n"
    shown = "a\\x1b[31m\\r\\x00\\ud800é\u3000\\u2028\\u202e"
    assert printable(name) == f"{shown}\n"
    assert one_line(name) == f"{shown}\\n"
    assert printable("é\n") == "é\n"
