"""Figures of held-out text, compared with values computed by hand."""

import json
import math
from typing import Any

import pytest

from lightning_modules.evaluation.held_out import Evaluation, HeldOut, LossSums, perplexity
from preprocess.shards.format import Shard

TEXT = HeldOut(tokens=100, words=50, characters=300, text_bytes=400, unspaced={})
BOTH = LossSums((100, 100), (200.0, 100.0))
BANDS = {(1, 100): LossSums((60, 60), (60.0, 30.0)), (101, 150): LossSums((40, 40), (140.0, 70.0))}


def figures(
    text: HeldOut = TEXT,
    total: LossSums = BOTH,
    unknown: int = 0,
    bands: dict[tuple[int, int], LossSums] = BANDS,
) -> dict[str, Any]:
    found = Evaluation(text, total, unknown, bands).figures()
    # As they are stored in the manifest.
    restored: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return restored


def shard(source: str, words: int, characters: int) -> Shard:
    return Shard("/nowhere", "valid-0", "valid", source, "<u2", 10, 400, words, characters, 900)


def test_perplexities_are_exponents_of_the_means() -> None:
    found = figures()

    assert found["forward_perplexity"] == pytest.approx(math.exp(2))
    assert found["backward_perplexity"] == pytest.approx(math.exp(1))
    assert found["average_perplexity"] == pytest.approx(math.exp(1.5))
    assert found["forward_word_perplexity"] == pytest.approx(math.exp(4))
    assert found["average_word_perplexity"] == pytest.approx(math.exp(3))
    assert found["average_character_perplexity"] == pytest.approx(math.exp(0.5))
    assert found["bits_per_byte"] == pytest.approx(150 / math.log(2) / 400)
    assert (found["forward"], found["backward"]) == (200.0, 100.0)
    assert found["not_defined"] == {}


def test_the_loss_is_the_mean_of_both_directions() -> None:
    assert Evaluation(TEXT, BOTH, 0, {}).loss == pytest.approx(1.5)
    assert Evaluation(TEXT, LossSums((100,), (200.0,)), 0, {}).loss == pytest.approx(2.0)


def test_bands_have_their_own_perplexities() -> None:
    first, second = figures()["bands"]

    assert (first["first_rank"], first["last_rank"], second["last_rank"]) == (1, 100, 150)
    assert (first["forward_tokens"], second["backward_tokens"]) == (60, 40)
    assert first["forward_perplexity"] == pytest.approx(math.exp(1))
    assert second["average_perplexity"] == pytest.approx(math.exp((140 + 70) / 80))
    assert first["backward"] + second["backward"] == pytest.approx(BOTH.nats[1])


def test_a_band_without_targets_has_no_perplexity() -> None:
    (band,) = figures(bands={(1, 100): LossSums((0, 0), (0.0, 0.0))})["bands"]

    assert band["forward_tokens"] == 0
    assert {band[f"{way}_perplexity"] for way in ("forward", "backward", "average")} == {None}


def test_each_direction_has_its_own_number_of_targets() -> None:
    """With bos_eos, the forward model predicts ends and the backward model beginnings of documents."""
    found = LossSums((10, 5), (20.0, 5.0)).perplexities()

    assert found["average"] == pytest.approx(math.exp((2 + 1) / 2))


def test_a_forward_model_has_forward_figures_only() -> None:
    bands = {(1, 100): LossSums((100,), (200.0,))}
    found = figures(total=LossSums((100,), (200.0,)), bands=bands)

    for unit in ("", "word_", "character_"):
        assert found[f"forward_{unit}perplexity"] > 1
        assert found[f"backward_{unit}perplexity"] is None
        assert found[f"average_{unit}perplexity"] is None
    assert found["backward"] is None
    assert found["bands"][0]["backward_perplexity"] is None
    assert found["bits_per_byte"] == pytest.approx(200 / math.log(2) / 400)
    assert found["not_defined"] == {"backward": "the model reads forward only"}


def test_bits_per_byte_are_not_defined_with_unknown_words() -> None:
    found = figures(unknown=1234)

    assert found["bits_per_byte"] is None
    assert found["unknown_tokens"] == 1234
    assert found["not_defined"] == {
        "bits_per_byte": "1,234 tokens are unknown words, whose spelling has no probability"
    }
    assert found["average_word_perplexity"] is not None, "words are counted, not spelt"


def test_a_part_of_a_split_has_figures_per_token_and_an_estimate_per_byte() -> None:
    found = figures(total=LossSums((50, 50), (100.0, 50.0)))

    assert found["forward_perplexity"] == pytest.approx(math.exp(2))
    assert found["average_perplexity"] == pytest.approx(math.exp(1.5))
    for key in ("average_word_perplexity", "average_character_perplexity"):
        assert found[key] is None
    whole = figures(total=LossSums((100, 100), (200.0, 100.0)))
    assert found["bits_per_byte"] == whole["bits_per_byte"] > 0
    part = "50 of 100 tokens were evaluated"
    assert found["not_defined"] == {"word": part, "character": part}


def test_a_split_of_which_nothing_was_evaluated_has_no_figures() -> None:
    result = Evaluation(TEXT, LossSums((0, 0), (0.0, 0.0)), 0, {})

    assert math.isnan(result.loss)
    assert result.figures()["average_perplexity"] is None
    assert result.figures()["bits_per_byte"] is None


def test_an_empty_split_has_no_figures() -> None:
    text = HeldOut.of([])
    found = Evaluation(text, LossSums((0, 0), (0.0, 0.0)), 0, {}).figures()

    assert (text.tokens, text.text_bytes) == (0, 0)
    assert {found[f"{way}_perplexity"] for way in ("forward", "backward", "average")} == {None}
    assert found["bits_per_byte"] is None


def test_perplexity_per_word_is_not_defined_without_spaces() -> None:
    text = HeldOut.of([shard("en", 100, 550), shard("zh", 10, 500), shard("zh", 10, 320)])
    total = LossSums((text.tokens, text.tokens), (200.0, 100.0))
    found = figures(text, total)

    assert text.unspaced == {"zh": 41.0}
    for way in ("forward", "backward", "average"):
        assert found[f"{way}_word_perplexity"] is None
        assert found[f"{way}_character_perplexity"] > 1
    assert found["not_defined"] == {
        "word": "text without spaces between words; characters from space to space: zh 41"
    }


def test_without_ranks_there_are_no_bands_and_the_reason_is_given() -> None:
    found = figures(bands={})

    assert found["bands"] == []
    assert found["not_defined"] == {
        "bands": "the training corpus is not available; name it in train.corpus"
    }


def test_each_documents_end_counts_as_token_word_character_and_byte() -> None:
    assert HeldOut.of([shard("en", 100, 550)]) == HeldOut(410, 110, 560, 910, {})


@pytest.mark.parametrize(("characters", "spaced"), [(610, True), (1200, True), (1431, False)])
def test_text_without_spaces_is_recognised_by_the_length_of_its_words(
    characters: int, spaced: bool
) -> None:
    """Characters per word: English 6.1, at most 12 in languages with spaces, Thai messages 14.3."""
    assert (not HeldOut.of([shard("one", 100, characters)]).unspaced) is spaced


def test_a_source_of_empty_documents_is_accepted() -> None:
    assert HeldOut.of([shard("empty", 0, 0)]).unspaced == {}


def test_a_perplexity_that_would_overflow_is_bounded() -> None:
    assert 1e300 < perplexity(1e9) < math.inf
    assert perplexity(1.0) == math.e
