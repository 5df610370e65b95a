"""Words with the separators that stand between them in their text."""

from collections.abc import Iterable
from typing import Self

SPACE = " "
"""What separates the words of a plain list of words."""


class JoinedWords(tuple[str, ...]):
    """The words of a text that are not all separated by single spaces.

    A plain list of words is read as its words joined by spaces. In a script without spaces, a model
    would then read spaces that its training text did not have.

    Args:
        words: the words in order.
        separators: the text before each word except the first.

    Attributes:
        separators: the argument, as a tuple.

    Raises:
        ValueError: if the number of separators does not fit.

    Example:
        >>> "".join(JoinedWords(["我", "在", "银行"], ["", ""]).pieces())
        '我在银行'
    """

    separators: tuple[str, ...]

    def __new__(cls, words: Iterable[str], separators: Iterable[str]) -> Self:
        made = super().__new__(cls, words)
        made.separators = tuple(separators)
        if len(made.separators) != max(len(made) - 1, 0):
            raise ValueError(f"{len(made.separators)} separators between {len(made)} words")
        return made

    def __getnewargs__(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(self), self.separators

    @property
    def has_only_spaces(self) -> bool:
        """Whether the text is that of the plain list of words."""
        return all(separator == SPACE for separator in self.separators)

    def pieces(self) -> Iterable[str]:
        """Yield the separators and words of the text in order."""
        for separator, word in zip(("", *self.separators), self, strict=False):
            yield separator
            yield word
