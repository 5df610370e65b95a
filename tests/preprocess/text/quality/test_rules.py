"""The sets of rules against plain versions of them, and the limits of each rule."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocess.quality.rule_sets import Documents, rule_sets
from preprocess.text.config import FilterConfig
from preprocess.text.quality import layout as layout_module
from preprocess.text.quality.config import (
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    UrlConfig,
)
from preprocess.text.quality.fineweb import fineweb
from preprocess.text.quality.gopher_quality import gopher_quality
from preprocess.text.quality.gopher_repetition import gopher_repetition
from preprocess.text.quality.layout import Layout, Mask, layouts_of

sys.path.insert(0, str(Path(__file__).parent))
import plain_rules as plain

PROSE = """\
The old bridge was built to carry people and carts across the river near the mill.
Nobody knows who designed it. Some say that a monk drew the arches on a wall.
In spring the water rises to the third stone, and children come to watch.
Have you seen the tower with its broken clock? It stopped in a storm long ago.
Farmers bring apples, cheese and wool along this road every second Saturday.
A painter rented the small house beside it for one summer and never left."""
CHINESE = (
    "这座桥建于很久以前，目的是让行人和马车通过河流。春天到来时，附近的居民都会来这里散步。" * 2
)
UNSPACED = [
    CHINESE + "\n历史学家认为它是当地最重要的建筑之一，但是没有人知道它的设计者是谁。",
    "この橋はずっと昔に建てられたもので、春になると近くの人々が散歩に来ます。",
    "สะพานเก่านี้สร้างขึ้นเพื่อให้ผู้คนและเกวียนข้ามแม่น้ำในฤดูใบไม้ผลิ",
]

words = st.sampled_from(
    [*["the", "be", "to", "of", "and", "that", "have", "with", "a", "I"], "house", "bridge", "naïve", "café", "x1", "2024",
     "#", "...", "…", "-", "•", "*", "end.", "why?", 'said."', "{", "[1]", "[edit]", "JavaScript",
     "lorem", "ipsum", "privacy", "policy", "cookies", "extraordinarilylongwords", "!?", "a" * 1001]
)  # fmt: skip
lines = st.lists(words, max_size=14).map(" ".join)
blocks = st.lists(lines, max_size=5).flatmap(
    lambda some: st.lists(st.sampled_from([*some, "", "  "]), max_size=24)
)
texts = blocks.map("\n".join)


def dropped(rules: Any, config: Any, originals: list[str]) -> list[set[str]]:
    found: list[set[str]] = [set() for _ in originals]
    for numbers, layout in layouts_of(originals):
        for reason, chosen in rules(layout, config):
            for index, number in enumerate(numbers):
                if chosen[index]:
                    found[number].add(reason)
    return found


def fineweb_of_all_lines(layout: Layout, config: FineWebConfig) -> Iterator[tuple[str, Mask]]:
    return fineweb(layout, np.ones(len(layout.lines), bool), config)


def screened(text: str, **filters: Any) -> Documents:
    documents = Documents([text], [None])
    for apply in rule_sets(FilterConfig(**filters)):
        apply(documents)
    return documents


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8))
def test_gopher_and_fineweb_agree_with_plain_versions(originals: list[str]) -> None:
    assert dropped(gopher_quality, GopherQualityConfig(), originals) == [
        plain.gopher_quality(text) for text in originals
    ]
    assert dropped(gopher_repetition, GopherRepetitionConfig(), originals) == [
        plain.gopher_repetition(text) for text in originals
    ]
    assert dropped(fineweb_of_all_lines, FineWebConfig(), originals) == [
        plain.fineweb(text) for text in originals
    ]


@settings(max_examples=150, deadline=None)
@given(texts.filter(str.strip))
def test_c4_agrees_with_a_plain_version(text: str) -> None:
    reason, rest, removed = plain.c4(text)
    documents = screened(text, c4={})
    assert documents.reasons == [reason]
    if reason is None:
        assert plain.lines_of(documents.texts[0]) == rest.split("\n")
        counted = {one.reason: one.lines for one in documents.removed.get(0, []) if one.lines}
        assert counted == removed


@settings(max_examples=40, deadline=None)
@given(
    st.lists(texts.filter(str.strip), min_size=1, max_size=6),
    st.sampled_from([1, 40, layout_module.LAYOUT_CHARACTERS]),
)
def test_sets_after_one_that_removes_lines_see_the_shorter_texts(
    originals: list[str], size: int
) -> None:
    documents = Documents(originals.copy(), [None] * len(originals))
    config = FilterConfig(gopher_quality={"min_words": 9}, refinedweb_lines={"max_removed_words": None}, c4={"min_sentences": 1}, fineweb={})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "LAYOUT_CHARACTERS", size)
        for apply in rule_sets(config):
            apply(documents)
    for number, original in enumerate(originals):
        # Each set alone, on the text that the former sets left.
        text, reason = original, None
        for name in ("gopher_quality", "refinedweb_lines", "c4", "fineweb"):
            if reason is None and text.strip():
                alone = screened(text, **{name: getattr(config, name)})
                text, reason = alone.texts[0], alone.reasons[0]
        assert (documents.texts[number], documents.reasons[number]) == (text, reason)


def test_lines_of_one_letter_are_equal_only_in_one_text() -> None:
    # The hash of a letter and the key of a text were equal numbers here once.
    originals = [f"{chr(180 - number - 1)}\n{PROSE}" for number in range(120)]
    config = GopherRepetitionConfig(max_duplicate_lines=0, max_top_ngrams=None)
    assert not any(dropped(gopher_repetition, config, originals))


def test_rules_agree_on_long_texts_with_repeats() -> None:
    rng = random.Random(5)
    originals = []
    for number in range(60):
        some = [" ".join(rng.choices(PROSE.split(), k=9)) + "." for _ in range(30)]
        originals.append("\n".join(some + some[: number // 2]))
    found = dropped(gopher_repetition, GopherRepetitionConfig(), originals)
    assert found == [plain.gopher_repetition(text) for text in originals]
    assert any(found)
    assert not all(found)


def test_prose_passes_every_set() -> None:
    documents = screened(
        PROSE, gopher_quality={}, gopher_repetition={}, c4={}, fineweb={}, refinedweb_lines={}
    )
    assert documents.reasons == [None]
    assert documents.texts == [PROSE]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("word " * 49, "gopher_too_few_words"),
        ("a of " * 40, "gopher_mean_word_length"),
        (PROSE + " #" * 40, "gopher_hash_signs"),
        (PROSE + " ..." * 40, "gopher_ellipses"),
        ("\n".join(f"- {line}" for line in PROSE.split("\n")), "gopher_bullet_lines"),
        ("\n".join(f"{line}…" for line in PROSE.split("\n")), "gopher_ellipsis_lines"),
        (PROSE + " 1234" * 90, "gopher_alphabetic_words"),
        ("Pferde laufen " * 40, "gopher_stop_words"),
    ],
)
def test_each_quality_rule_has_its_reason(text: str, reason: str) -> None:
    assert screened(text, gopher_quality={}).reasons == [reason]


def test_a_rule_that_is_null_is_off_and_a_limit_can_be_set() -> None:
    assert screened(
        "of the", gopher_quality={"min_words": None, "min_mean_word_length": 2}
    ).reasons == [None]
    assert screened(
        "of the", gopher_quality={"min_words": 2, "min_mean_word_length": 2}
    ).reasons == [None]
    off = dict.fromkeys(GopherRepetitionConfig.model_fields)
    assert screened("a b a b a b a b a b a b a b", gopher_repetition=off).reasons == [None]
    german = {"stop_words": ["der", "und"], "min_words": 5}
    assert screened("der Hund und der alte Mann", gopher_quality=german).reasons == [None]


@pytest.mark.parametrize("text", UNSPACED)
def test_text_without_spaces_is_measured_by_letters_and_not_dropped_for_its_script(
    text: str,
) -> None:
    documents = screened(text * 2, gopher_quality={}, fineweb={}, refinedweb_lines={})
    assert documents.reasons == [None]
    documents = screened(CHINESE, c4={"min_sentences": 4})
    assert documents.reasons == [None]
    assert screened("短。", gopher_quality={}).reasons == ["gopher_too_few_words"]
    repeated = "买手表" * 60
    assert str(screened(repeated, gopher_repetition={}).reasons[0]).startswith("gopher_top_2_gram")


def test_c4_counts_removed_lines_and_characters_of_kept_documents_only() -> None:
    menu = "Home\nPlease enable JavaScript to see this page.\nWe use cookies, as our policy says."
    documents = screened(f"{PROSE}\n{menu}\nA bridge.[12]", c4={})
    assert documents.texts == [PROSE]
    found = {one.reason: (one.lines, one.characters) for one in documents.removed[0]}
    assert found == {
        "c4_citations": (0, 4),
        "c4_no_terminal_punctuation": (1, 4),
        "c4_short_line": (1, 9),
        "c4_javascript": (1, 42),
        "c4_policy": (1, 35),
    }
    assert screened(menu, c4={}).removed == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("This site USES Cookies for its readers.", "c4_policy"),
        ("This site uses coo\u212aies for its readers.", "c4_policy"),
        ("This site uses cook\u0130es for its readers.", None),
        ("This site uses c\u0151okies for its readers.", None),
        ("A cookie is a small cake of butter.", None),
        ("Read our Privacy Policy \u2013 it is short.", "c4_policy"),
        ("Please turn on JavaScript in this browser.", "c4_javascript"),
    ],
)
def test_phrases_of_c4_are_found_in_any_case(line: str, reason: str | None) -> None:
    documents = screened(f"{PROSE}\n{line}", c4={})
    assert [one.reason for one in documents.removed.get(0, [])] == [reason] * bool(reason)
    assert documents.texts == [PROSE if reason else f"{PROSE}\n{line}"]


@pytest.mark.parametrize(
    ("text", "ellipses"),
    [("...", 1), ("......", 2), ("..... ..", 1), ("....\n...…", 3), ("a.b", 0)],
)
def test_three_dots_are_one_ellipsis(text: str, ellipses: int) -> None:
    rules = {"gopher_quality": dict.fromkeys(GopherQualityConfig.model_fields, None)}
    del rules["gopher_quality"]["stop_words"]
    for number in (ellipses, ellipses - 1):
        # The limit is a number per word: all these texts have one or two words.
        limit = max(number, 0) / len(text.split())
        found = screened(
            text, gopher_quality={**rules["gopher_quality"], "max_symbols_per_word": limit}
        )
        assert found.reasons == [None if number == ellipses else "gopher_ellipses"] or number < 0


def test_bad_words_stand_alone_unless_their_script_has_no_spaces(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("ass\n坏词\nvery bad\n", encoding="utf-8")
    c4 = {"bad_words": str(tmp_path / "bad.txt"), "min_sentences": None}
    for text, reason in (
        ("The class met in the hall today.", None),
        ("What an ASS he was to me then.", "c4_bad_words"),
        ("This is very bad for all of us.", "c4_bad_words"),
        ("这里有坏词出现在文本里面。", "c4_bad_words"),
    ):
        assert screened(text, c4=c4).reasons == [reason]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("HOME ABOUT CONTACT", "refinedweb_uppercase"),
        ("12 / 34", "refinedweb_numbers"),
        ("3 likes", "refinedweb_counter"),
        ("1.2k Followers", "refinedweb_counter"),
        ("Menu", "refinedweb_single_word"),
        ("Sign in to your account", "refinedweb_phrase"),
        ("Would you like to read more?", "refinedweb_phrase"),
        ("2 items in cart now", "refinedweb_phrase"),
    ],
)
def test_refinedweb_removes_boilerplate_lines(line: str, reason: str) -> None:
    documents = screened(f"{PROSE}\n{line}", refinedweb_lines={"max_removed_words": 0.1})
    assert documents.texts == [PROSE]
    assert [one.reason for one in documents.removed[0]] == [reason]
    short = screened(f"{line}\nA good line of text here.", refinedweb_lines={})
    assert short.reasons == ["refinedweb_removed_words"]


def test_limits_that_contradict_and_wrong_shares_are_refused() -> None:
    for config, given_settings, message in (
        (GopherQualityConfig, {"min_words": 9, "max_words": 8}, "min_words is above max_words"),
        (GopherQualityConfig, {"min_stop_words": 9}, "stop_words has 8 different words"),
        (GopherRepetitionConfig, {"max_top_ngrams": (2, 0, 0)}, "is not a share from 0 to 1"),
        (C4Config, {"min_sentences": 0}, "greater than or equal to 1"),
        (UrlConfig, {}, "no list is named; set folders, domains, urls or words"),
        (FilterConfig, {"min_language_score": 0.5}, "set without languages"),
    ):
        with pytest.raises(ValidationError, match=message):
            config(**given_settings)
