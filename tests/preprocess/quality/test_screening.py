"""Screening: the order of its steps, its counts and examples, and what does not change a result."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import PrepareConfig
from preprocess.quality import report
from preprocess.quality.report import EXAMPLES, Report
from preprocess.quality.screening import Screener
from preprocess.reading.block import shortened
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig

LINES = [
    f"Line {word} of the text has enough words and an end."
    for word in ["one", "two", "three", "four"]
]
QUESTION = "Which of the two old rivers that cross the town is longer, and why is it so?"


def screener(**given_settings: Any) -> Screener:
    config = PrepareConfig.model_validate({"input": "unused", **given_settings})
    return Screener(config, config.sources[0])


def no_ids() -> list[str]:
    raise AssertionError("ids are not needed")


@settings(deadline=None)
@given(
    st.lists(
        st.text(alphabet="aé\u0301 \u00a0\n\r\t\x00\ufeff\ud800ﬁ,.1#", max_size=30), max_size=8
    )
)
def test_rules_that_drop_nothing_leave_cleaning_as_it_is(texts: list[str]) -> None:
    cleaner = Cleaner(CleaningConfig(unicode="NFKC"))
    expected = cleaner.clean_batch(texts)
    off = dict.fromkeys(("min_words", "max_words", "min_mean_word_length", "max_mean_word_length",
        "max_symbols_per_word", "max_bullet_lines", "max_ellipsis_lines", "min_alphabetic_words",
        "min_stop_words"))  # fmt: skip
    one = screener(cleaning={"unicode": "NFKC"}, filters={"gopher_quality": off})
    found = one.screen(texts, no_ids)
    assert found.texts == expected
    assert found.originals == texts
    assert found.reasons == [None if text else "empty" for text in expected]
    assert +one.changed == +cleaner.counts


def test_what_is_empty_after_cleaning_has_no_other_reason_if_it_is_dropped() -> None:
    texts, few = ["", " \x00", "ab", "long enough"], {"min_characters": 5}
    assert screener(filters=few).screen(texts, no_ids).reasons == [
        *("empty", "empty", "too_short", None)
    ]
    kept = screener(filters=few, drop_empty=False).screen(texts, no_ids)
    assert kept.reasons == ["too_short", "too_short", "too_short", None]


def test_rules_see_lines_and_the_result_is_cleaned() -> None:
    one = screener(filters={"c4": {"min_sentences": 1}})
    text = f"  {LINES[0]}\r\nMenu\u00a0\n\n{LINES[1]}  "
    found = one.screen([text, LINES[0]], no_ids)
    assert found.texts == [f"{LINES[0]} {LINES[1]}", LINES[0]]
    assert found.originals == [f"{LINES[0]} {LINES[1]}", LINES[0]]
    assert one.report.removed_lines == {"c4_no_terminal_punctuation": 1}
    assert one.report.removed_characters == {"c4_no_terminal_punctuation": 4}
    assert one.report.examples["c4_no_terminal_punctuation"][0][1] == "Menu"


def test_a_text_that_becomes_too_short_is_dropped_and_its_lines_are_not_counted() -> None:
    one = screener(filters={"min_characters": 60, "c4": {"min_sentences": None}})
    found = one.screen([f"{LINES[0]}\nA long line of a menu without an end mark"], no_ids)
    assert found.reasons == ["too_short"]
    assert not one.report.removed_lines


def test_the_first_step_that_drops_a_document_is_its_reason(tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("bad.org\n")
    (tmp_path / "items.txt").write_text(QUESTION + "\n")
    one = screener(
        filters={
            "urls": {"domains": str(tmp_path / "domains")},
            "min_characters": 3,
            "gopher_quality": {"min_words": 3},
            "fineweb": {},
        },
        decontamination={"benchmarks": {"rivers": str(tmp_path / "items.txt")}},
    )
    texts = [
        "x",
        "x",
        "word",
        QUESTION,
        "The longest chapter of the history has no end mark here",
        LINES[0],
    ]
    ids = ["http://a.bad.org/", "", "", "http://good.org", "", ""]
    found = one.screen(texts, lambda: ids)
    assert found.reasons == [
        *("url_domain", "too_short", "gopher_too_few_words", "contaminated_rivers"),
        *("fineweb_punctuated_lines", None),
    ]
    assert found.matches[3].item == 1
    assert one.report.without_url == 4
    assert one.report.summary()["benchmarks"] == {
        "rivers": {"items": 1, "without_text": 0, "short": 0, "matched": 1}
    }
    assert one.report.examples["contaminated_rivers"][0][1].startswith(
        "which of the two old rivers"
    )


def test_personal_data_are_masked_last_and_hidden_in_examples() -> None:
    one = screener(mask={"email": "<email>"}, filters={"max_characters": 30})
    texts = ["Ask ann@mail.org now.", "ann@mail.org " * 5, "nothing"]
    found = one.screen(texts, no_ids)
    assert found.texts == ["Ask <email> now.", ("ann@mail.org " * 5).strip(), "nothing"]
    assert found.originals == [found.texts[0], *texts[1:]]
    assert one.report.masked == {"email": 1}
    assert "ann@" not in str(one.report.saved())


def test_a_killed_run_continues_with_its_counts() -> None:
    first, whole = (screener(mask={"email": "<email>"}, filters={"c4": {}}) for _ in range(2))
    batches = [[f"a{n}@mail.org  b", "\n".join([*LINES, f"Menu {n}"])] for n in range(4)]
    first.screen(batches[0], no_ids)
    second = screener(mask={"email": "<email>"}, filters={"c4": {}})
    second.resume(first.changed, first.report.saved())
    for batch in batches[1:]:
        second.screen(batch, no_ids)
    for batch in batches:
        whole.screen(batch, no_ids)
    assert second.report.saved() == whole.report.saved()
    assert second.changed == whole.changed


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3)), max_size=40), st.integers(0, 99)
)
def test_reports_of_parts_join_in_any_order(examples: list[tuple[str, str]], seed: int) -> None:
    whole, parts = Report(), [Report() for _ in range(3)]
    for number, (reason, text) in enumerate(examples):
        for one in (whole, parts[number % 3]):
            one.add_example(reason, text)
            one.add_matched({"some": [number]})
            one.masked["email"] += 1
    random.Random(seed).shuffle(parts)
    joined = Report()
    for part in parts:
        joined.add(part.saved())
    assert joined.saved() == whole.saved()
    assert all(len(found) <= EXAMPLES for found in joined.examples.values())


def test_an_example_is_cut_and_can_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EXAMPLE_CHARACTERS", 5)
    one = Report()
    one.add_example("a", "\ud80012345678")
    assert one.summary() == {"examples": {"a": ["\\ud8001234"]}}
    assert Report().saved() == {}


def test_personal_data_at_a_cut_are_hidden() -> None:
    one = screener(mask={"email": "<email>"})
    text = f"{'x' * 290} jane.doe@mail.example.org and more"
    assert one.hidden(text, 300) == f"{'x' * 290} <email> a"
    assert one.hidden(text) == f"{'x' * 290} <email> and more"
    assert screener().hidden(text, 300) == text[:300]
    dropping = screener(mask={"email": "<email>"}, filters={"min_characters": 1000})
    dropping.screen([text], no_ids)
    assert dropping.report.examples["too_short"][0][1] == f"{'x' * 290} <email> a"


def test_personal_data_in_excerpts_are_hidden_also_behind_escapes_and_at_a_cut() -> None:
    one = screener(mask={"email": "<email>", "ip": "<ip>", "phone": "<phone>"})
    text = "Call\n+49 30 901820\n(555) 234-5678\t93.184.216.34\nann@mail.org"
    hidden = r"Call\n<phone>\n<phone>\t<ip>\n<email>"
    assert one.hidden_excerpt(shortened(text)) == hidden
    assert one.hidden_excerpt(json.dumps({"a": text})) == f'{{"a": "{hidden}"}}'
    for begun in ("jane.doe", "jane.doe@mail", "+49 30 90", "(555) 234-"):
        excerpt = shortened(f"{'word ' * 300}"[: 1000 - len(begun)] + begun + "123")
        assert begun not in one.hidden_excerpt(excerpt)
        assert len(one.hidden_excerpt(excerpt)) > 900
    assert screener().hidden_excerpt(text) == text


def test_personal_data_in_removed_lines_are_hidden_in_examples() -> None:
    one = screener(mask={"email": "<email>"}, filters={"c4": {}})
    one.screen(["\n".join([*LINES, "Write to ann@mail.org"])], no_ids)
    assert one.report.removed_lines == {"c4_no_terminal_punctuation": 1}
    assert "ann@" not in str(one.report.saved())
    assert "Write to <email>" in str(one.report.saved())
