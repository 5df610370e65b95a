"""The base class of errors that users can fix, and functions to show names in messages."""

import unicodedata

_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
# Characters that reorder the text after them.
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class UserError(ValueError):
    """Wrong input, a wrong setting or a damaged file.

    The message says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with status 2.
    """


class JobError(UserError):
    """A job that failed for a reason other than wrong input, such as a lost process.

    The message says what happened and how to resume. The command line prints it without a traceback
    and exits with status 3.
    """


def printable(text: str) -> str:
    r"""Escape the control characters of ``text``, so that a file name cannot control the terminal.

    Line breaks remain, bytes that are not UTF-8 become ``\udcXX``.
    """
    if text.isprintable():
        return text
    return "".join(
        ascii(c)[1:-1]
        if c != "\n" and (unicodedata.category(c) in _UNSHOWN or c in _DIRECTIONS)
        else c
        for c in text
    )


def one_line(text: str) -> str:
    """Escape the control characters and line breaks of a name or path, to show it in a message."""
    return printable(text).replace("\n", "\\n")
