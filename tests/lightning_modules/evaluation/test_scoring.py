"""Scores of texts, compared with a sum over single tokens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation import scoring
from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.evaluation.perplexity import evaluate
from lightning_modules.evaluation.scoring import Score, score_texts
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window import Types, Window
from preprocess.config import WordConfig
from preprocess.errors import UserError
from preprocess.shards.format import Shard
from preprocess.shards.held_out_rows import rows_of_documents
from preprocess.shards.held_out_windows import HeldOutWindows
from preprocess.shards.stream import Int64Ids, TokenStream, boundary_ids
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.load import train_tokenizer
from preprocess.tokenizers.spellings import Spellings
from tests.exportable_models import make_model

TEXTS = ["kana lori mele", "mele mele kana zuzu", "", "kana " * 30]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}
KINDS: dict[str, dict[str, Any]] = {
    "adaptive": {"head": {"kind": "adaptive_softmax", "cutoffs": [3]}},
    "full": {"head": {"kind": "softmax"}, "output_vocabulary": 5},
    "sampled, by spelling": {"head": {"kind": "sampled_softmax", "samples": 2}, "input": SPELLING},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3}},
    "sru": {"recurrent": {"kind": "sru", "hidden": 6}},
    "forward": {"directions": "forward"},
}


def untrained(boundary: Any = "bos_eos", with_head: bool = True, **sections: Any) -> BiLM:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(WordConfig(), ["kana kana lori mele"])
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    cutoffs = tuple(sections.get("head", {}).get("cutoffs", ()))
    network = BiLMNetwork(config, tokenizer.vocabulary, cutoffs, head=with_head)
    return BiLM(network, tokenizer, CleaningConfig(), boundary)


def by_hand(model: BiLM, text: str) -> list[float]:
    """Return the log-probability of each direction, computed token by token."""
    tokens = [token.id for token in model.reader.read([text])[0].tokens]
    before, after = model.starts
    streams = [[before, *tokens, after], [after, *tokens[::-1], before]]
    network = model.network
    sums = []
    for direction in range(network.directions):
        total = 0.0
        state = network.zero_state(1)
        for read, wanted in zip(streams[direction], streams[direction][1:], strict=False):
            ids = torch.full((network.directions, 1, 1), read)
            target = UNKNOWN if wanted >= network.output_vocabulary else wanted
            targets = torch.full_like(ids, target)
            with torch.inference_mode():
                nll, state = network.nll(Window(model.encoder.inputs(ids), targets), state)
            total -= float(nll[direction])
        sums.append(total)
    return sums


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_sum_over_all_tokens_and_the_closing_boundary(
    kind: str, boundary: str
) -> None:
    model = untrained(boundary, **KINDS[kind])

    for text, found in zip(TEXTS[::2], score_texts(model, TEXTS[::2]), strict=True):
        expected = by_hand(model, text)
        assert found.tokens == len(text.split()) + 1
        assert found.forward == pytest.approx(expected[0], rel=1e-5)
        if model.network.directions == 1:
            assert found.backward is None
            assert found.log_probability == found.forward
        else:
            assert found.backward == pytest.approx(expected[1], rel=1e-5)
            assert found.log_probability == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_scores_do_not_depend_on_batches_or_chunks(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(**KINDS[kind])
    alone = [score_texts(model, [text])[0] for text in TEXTS]
    monkeypatch.setattr(scoring, "CHUNK", chunk)

    for batch_tokens in (1, 8, 1000):
        for one, found in zip(alone, score_texts(model, TEXTS, batch_tokens), strict=True):
            assert (found.tokens, found.unknown) == (one.tokens, one.unknown)
            np.testing.assert_allclose(found.forward, one.forward, rtol=1e-5)


def stored(folder: Path, documents: list[list[int]]) -> Shard:
    """Write a shard of documents of ids."""
    name = f"valid-{len(list(folder.iterdir()))}"
    ids = [token for document in documents for token in document]
    np.array(ids, "<u2").tofile(folder / f"{name}.bin")
    np.array(list(map(len, documents)), "<u4").tofile(folder / f"{name}.len")
    sizes = (len(documents), len(ids), len(ids), 5 * len(ids), 5 * len(ids))
    return Shard(str(folder), name, "valid", "one", "<u2", *sizes)


def encoder(model: BiLM) -> Callable[[Int64Ids], Types] | None:
    if model.network.input.__class__.__name__ != "CharCNN":
        return None
    spellings = Spellings(model.tokenizer.spelling, model.tokenizer.vocabulary, 12)
    return partial(types_of_window, spellings=spellings)


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_the_evaluation_of_a_split_from_the_zero_state_is_the_sum_of_the_scores(
    kind: str, boundary: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    model = untrained(boundary, **KINDS[kind])
    # Unknown words have an id in a corpus, and in a text a spelling that a character CNN reads.
    words = ["kana", "lori", "mele", *(["zuzu"] if "spelling" not in kind else [])]
    texts = data.draw(st.lists(st.lists(st.sampled_from(words), max_size=9), min_size=1))
    rows, unroll = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    documents = [[token.id for token in text.tokens] for text in model.reader.read(texts)]
    shard = stored(tmp_path_factory.mktemp("shards"), documents)
    stream, text = TokenStream([shard], boundary), HeldOut.of([shard])
    windows = HeldOutWindows(stream, rows_of_documents(stream, rows), unroll)

    result = evaluate(model.network, windows, text, None, boundary_ids(boundary), encoder(model))

    scores = score_texts(model, texts)
    assert result.total.tokens[0] == sum(one.tokens for one in scores)
    assert result.unknown == sum(one.unknown for one in scores)
    assert -result.total.nats[0] == pytest.approx(sum(one.forward for one in scores), rel=1e-6)
    if model.network.directions == 2:
        backward = sum(one.backward or 0.0 for one in scores)
        assert -result.total.nats[1] == pytest.approx(backward, rel=1e-6)


def test_tokens_that_cannot_be_predicted_count_as_unknown() -> None:
    model = untrained(head={"kind": "softmax"}, output_vocabulary=5)
    counts = [one.unknown for one in score_texts(model, ["kana zuzu", "kana mele", "kana lori"])]

    assert counts == [1, 1, 0]


def test_perplexity_is_per_token_and_bounded() -> None:
    score = Score(4, 0, -4.0, -8.0)

    assert score.perplexity(score.forward) == pytest.approx(np.e)
    assert score.perplexity(score.log_probability) == pytest.approx(np.exp(1.5))
    assert 1e300 < score.perplexity(-1e9) < np.inf


def test_a_model_without_output_layer_cannot_score() -> None:
    with pytest.raises(UserError, match=r"has no output layer.*export\.head=true"):
        score_texts(untrained(with_head=False), ["kana"])


def test_a_single_string_is_no_list_of_texts() -> None:
    with pytest.raises(TypeError, match=r"a list of texts, not str; write \[text\] for a single"):
        score_texts(untrained(), "kana")


def test_a_static_model_scores_nothing() -> None:
    with pytest.raises(UserError, match="a static model never has one"):
        score_texts(make_model("static"), ["w1 w2"])
