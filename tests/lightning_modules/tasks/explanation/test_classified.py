"""Explanations of a classifier with random heads, and of an untrained language model."""

from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.tasks.classification.classifier import Classifier, PooledHead
from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.heads import TextHead
from lightning_modules.tasks.classification.linear.regression import Linear
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.classification.network_head import NetworkHead
from lightning_modules.tasks.classification.pooled import Source
from lightning_modules.tasks.explanation import methods
from lightning_modules.tasks.explanation.classified import (
    ClassifierExplainer,
    differentiable,
    log_odds,
)
from lightning_modules.tasks.explanation.explained import ExplainError, shown_units
from lightning_modules.tasks.explanation.inputs import TaskInputs
from lightning_modules.tasks.explanation.language_model import explain_surprise
from preprocess.config import SentencePieceConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import TextAligner
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from preprocess.tokenizers.load import train_tokenizer
from tests.tokenizer_files import tokenizer_file

TEXTS = ["The cat sat on the mat .", "A dog ran to the cat , twice ."]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}


def untrained(**sections: Any) -> BiLM:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(SentencePieceConfig(vocabulary=300), TEXTS * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    network = BiLMNetwork(config, tokenizer.vocabulary)
    return BiLM(network, tokenizer, CleaningConfig(), "bos_eos")


def classifier(
    model: BiLM,
    head: str = "pool",
    unit: Any = "token",
    pooling: Any = "mean",
    pairs: bool = False,
    target: Any = "single",
) -> Classifier:
    labels = () if target == "number" else ("bad", "good", "so-so")
    outputs = len(labels) or 1
    source = Source(model, None, unit, pooling)
    problem = Problem(target, labels)
    made: Any
    if head == "pool":
        width = model.dim * (2 if pooling == "mean_max" else 1) * (4 if pairs else 1)
        draw = np.random.default_rng(1)
        linear = Linear(draw.normal(size=(outputs, 2 * width)), draw.normal(size=outputs), 1.0, "x")
        made = PooledHead(linear, (0, 2), False)
    else:
        config = NetworkConfig.model_validate({"kind": head, "hidden": 5, "filters": 4})
        made = NetworkHead(TextHead(config, model.depth, model.dim, outputs, pairs).eval())
    return Classifier(problem, made, source, np.full(outputs, 1 / outputs), pairs)


CASES: list[dict[str, Any]] = [
    {},
    {"unit": "word", "pooling": "mean_max"},
    {"pairs": True, "pooling": "max"},
    {"head": "lstm", "unit": "word"},
    {"head": "gru"},
    {"head": "cnn", "pairs": True},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sections", [{}, {"input": SPELLING}, {"directions": "forward"}])
def test_the_explained_outputs_are_the_predicted_ones(
    case: dict[str, Any], sections: dict[str, Any]
) -> None:
    model = untrained(**sections)
    made = classifier(model, **case)
    pair = TEXTS[1] if made.has_pairs else None
    texts = TEXTS if made.has_pairs else TEXTS[:1]
    inputs = TaskInputs(model, texts, made.source.unit, differentiable(made))

    rows = inputs.vectors.expand(3, -1, -1)
    found = inputs.outputs(rows).detach().numpy()
    expected = made.head.outputs(made.source, TEXTS[0], pair)
    np.testing.assert_allclose(found, np.stack([expected] * 3), atol=1e-4)


def test_the_score_is_the_log_odds() -> None:
    outputs = torch.tensor([[1.0, 2.0, -1.0]])
    p = outputs.softmax(1)[0, 1]
    odds = log_odds(outputs, 1, Problem("single", ("a", "b", "c")))
    assert odds.item() == pytest.approx((p / (1 - p)).log().item())
    assert log_odds(outputs, 2, Problem("several", ("a", "b", "c"))).item() == -1
    assert log_odds(outputs[:, :1], 0, Problem("number", ())).item() == 1


@pytest.mark.parametrize("head", ["lstm", "gru", "cnn"])
def test_integrated_gradients_of_a_network_are_complete(head: str) -> None:
    explainer = ClassifierExplainer(
        classifier(untrained(), head), "integrated_gradients", "good", "word", 1000
    )
    for text in TEXTS:
        found = explainer.explain(text, None, "line 1")
        change = found.facts["score"] - found.facts["baseline"]
        assert found.rows[0].values.sum() == pytest.approx(
            change, abs=0.01 * max(abs(change), 0.01)
        )
        assert "not attributed" not in found.title


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input", "occlusion"])
def test_words_get_the_attributions_of_their_tokens(method: Any) -> None:
    made = classifier(untrained())
    words = ClassifierExplainer(made, method, None, "auto", 1000).explain(TEXTS[0], None, "line 1")
    tokens = ClassifierExplainer(made, method, None, "token", 1000).explain(
        TEXTS[0], None, "line 1"
    )

    assert [words.text[start:end] for start, end in words.spans] == TEXTS[0].split()
    assert len(tokens.spans) > len(words.spans)
    if method == "integrated_gradients":
        sums = words.rows[0].values.sum()
        assert sums == pytest.approx(words.facts["score"] - words.facts["baseline"], rel=0.02)
    if method != "occlusion":
        assert tokens.rows[0].values.sum() == pytest.approx(words.rows[0].values.sum(), rel=1e-3)
    label = made.predict(TEXTS[0]).labels[0]
    assert words.facts["label"] == label
    assert words.title.startswith(f"{label} (p = ")


def test_both_texts_of_a_pair_are_explained() -> None:
    made = classifier(untrained(), pairs=True)
    explainer = ClassifierExplainer(made, "occlusion", "bad", "word", 1000)
    found = explainer.explain(*TEXTS, "line 1")
    assert found.text == "\n".join(TEXTS)
    units = [found.text[start:end] for start, end in found.spans]
    assert units == [*TEXTS[0].split(), *TEXTS[1].split()]
    assert (found.rows[0].values != 0).all()
    with pytest.raises(ExplainError, match="line 2: this task classifies pairs of texts"):
        explainer.explain(TEXTS[0], None, "line 2")


def test_what_is_not_explained_is_told() -> None:
    made = classifier(untrained(), target="number")
    explainer = ClassifierExplainer(made, "occlusion", None, "word", 5)
    assert explainer.explain("", None, "line 1", "empty text").title == "not explained: empty text"
    assert explainer.explain("   ", None, "line 1").title == "not explained: no tokens"
    found = explainer.explain(TEXTS[0], None, "line 1")
    assert "its first 5 of" in found.title
    assert TEXTS[0].startswith(found.text.strip())
    with pytest.raises(ExplainError, match="for_label: the task predicts a number and has no"):
        ClassifierExplainer(made, "occlusion", "good", "word", 5)
    with pytest.raises(ExplainError, match="no label 'fine'; its labels are bad, good, so-so"):
        ClassifierExplainer(classifier(untrained()), "occlusion", "fine", "word", 5)


def test_attributions_that_do_not_add_up_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "TOLERANCE", 1e-9)
    monkeypatch.setattr(methods, "MOST_POSITIONS", 0)
    explainer = ClassifierExplainer(
        classifier(untrained()), "integrated_gradients", None, "auto", 9
    )
    assert "; not attributed: " in explainer.explain(TEXTS[0], None, "line 1").title


def test_a_language_model_shows_surprise_and_saliency_by_word() -> None:
    model = untrained()
    [found, empty] = explain_surprise(model, [TEXTS[0], ""], ["line 1", "line 2"], scale="nats")
    assert [row.name for row in found.rows] == ["forward_nats", "backward_nats", "saliency"]
    assert [found.text[start:end] for start, end in found.spans] == TEXTS[0].split()
    [gradient] = model.embed([TEXTS[0]], kind="gradient", layers=(0,))
    whole = np.linalg.norm(gradient.vectors)
    assert np.linalg.norm(found.rows[2].values) == pytest.approx(whole, rel=1e-5)
    assert empty.title == "no tokens"
    assert empty.spans == ()

    [bits] = explain_surprise(model, [TEXTS[0]], ["line 1"], scale="bits")
    np.testing.assert_allclose(bits.rows[0].values * np.log(2), found.rows[0].values)


def test_a_text_without_spaces_is_shown_by_its_tokens() -> None:
    [found] = explain_surprise(untrained(), ["thecatsatonthematandthedograntothecat"], ["line 1"])
    assert len(found.spans) > 5


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("很好，喜欢。", [*"很好，喜欢。"]),
        ("The cat 很好 mat", ["The", "cat", "很", "好", "mat"]),
        ("😀 שלום", ["😀", "שלום"]),
    ],
)
@pytest.mark.parametrize("kind", ["sentencepiece", "gpt2", "roberta", "llama"])
def test_each_unit_has_characters_of_its_own(text: str, units: list[str], kind: str) -> None:
    # The vocabulary has none of these characters, so each is several byte tokens.
    reader = untrained().reader
    if kind != "sentencepiece":
        file = HuggingFaceTokenizer(tokenizer_file(kind))
        reader = TextAligner(Cleaner(CleaningConfig()), file)
    [read] = reader.read([text])
    shown, found = shown_units([read], "auto")
    assert [shown[start:end] for start, end in found.spans] == units
    by_token = shown_units([read], "token")[1]
    assert all(shown[start:end].strip() for start, end in by_token.spans)
    for one in (found, by_token):
        assert one.sums(np.ones(len(read.tokens))).sum() == len(read.tokens)
        assert sorted(set(one.groups.tolist())) == [*range(len(one.spans))]
