"""The error class of ELMo archives, and the errors of their files."""

from collections.abc import Iterator
from contextlib import contextmanager

from preprocess.errors import UserError, one_line


class ElmoError(UserError):
    """An archive that cannot be read, or a model that an ELMo archive cannot represent."""


@contextmanager
def reading(path: str, hint: str) -> Iterator[None]:
    """Convert the errors of reading a file in the block to `ElmoError`.

    Args:
        path: the file.
        hint: what to do if it is missing.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ElmoError(f"{one_line(path)} is missing; {hint}") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ElmoError(f"{one_line(path)}: cannot be read ({reason}); {hint}") from error
