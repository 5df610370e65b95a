"""Texts sampled from a language model, compared with scores and with probabilities by hand."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.generation import GenerationError, Sampling, draw, generate
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.streams import VectorError
from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.errors import UserError
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer
from tests.exportable_models import make_model

SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}
KINDS: dict[str, dict[str, Any]] = {
    "adaptive": {"head": {"kind": "adaptive_softmax", "cutoffs": [3, 5]}},
    "full": {"head": {"kind": "softmax"}, "output_vocabulary": 5},
    "sampled, by spelling": {"head": {"kind": "sampled_softmax", "samples": 2}, "input": SPELLING},
    "gru": {"recurrent": {"kind": "gru", "hidden": 6}},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3}},
    "sru": {"recurrent": {"kind": "sru", "hidden": 6}},
}
TOKENIZERS: dict[str, Any] = {
    "word": WordConfig(),
    "char": CharConfig(),
    "pieces": SentencePieceConfig(vocabulary=300),
}
TEXTS = ["kana kana lori mele", "mele lori zuzu 字 kana"]


def untrained(
    tokenizer: str = "word", boundary: Any = "bos_eos", head: bool = True, **sections: Any
) -> BiLM:
    torch.manual_seed(1)
    made = train_tokenizer(TOKENIZERS[tokenizer], TEXTS * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    cutoffs = tuple(sections.get("head", {}).get("cutoffs", ()))
    network = BiLMNetwork(config, made.vocabulary, cutoffs, head=head)
    for weight in network.parameters():  # far from uniform
        weight.data.mul_(2)
    return BiLM(network, made, CleaningConfig(), boundary)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("boundary", ["bos_eos", "eos"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_probability_of_its_score(kind: str, boundary: Any, direction: Any) -> None:
    """What was drawn is what the model reads when it scores the text."""
    model = untrained(boundary=boundary, **KINDS[kind])
    sampling = Sampling(direction=direction, tokens=500)
    for one in generate(model, sampling=sampling, number=4):
        assert one.ended
        assert "<" not in one.text, "a control token was drawn"
        [score] = score_texts(model, [one.text])
        expected = score.forward if direction == "forward" else score.backward
        assert one.log_probability == pytest.approx(expected, abs=1e-4)
        assert " ".join(one.tokens) == one.text


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_prompt_is_read(direction: Any) -> None:
    model = untrained()
    prompt = "kana lori mele " * 40  # longer than is read at once
    [one] = generate(model, prompt, Sampling(direction=direction, tokens=500))
    [whole], [alone] = score_texts(model, [one.text]), score_texts(model, [prompt])
    if direction == "forward":
        assert one.text.startswith(prompt.strip())
        found, before, end = whole.forward, alone.forward, model.starts[1]
    else:
        assert one.text.endswith(prompt.strip())
        assert whole.backward is not None
        assert alone.backward is not None
        found, before, end = whole.backward, alone.backward, model.starts[0]
    # The score of the prompt includes its end, which was not drawn there.
    stopped = Sampling(direction=direction, temperature=0, tokens=1)
    assert one.ended
    assert found - before == pytest.approx(
        one.log_probability - log_p_of(model, prompt, end, stopped), abs=1e-3
    )


def log_p_of(model: BiLM, prompt: str, token: int, sampling: Sampling) -> float:
    from lightning_modules.evaluation.generation import _Reader

    [read] = model.reader.read([prompt])
    with model.encoder.inference():
        reader = _Reader(model, int(sampling.direction == "backward"))
        return float(reader.read_prompt(read.tokens)[token])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_same_seed_gives_the_same_texts(tokenizer: str) -> None:
    model = untrained(tokenizer)
    model.train()  # dropout must not act
    texts = [one.text for one in generate(model, "kana", Sampling(tokens=12), 4)]
    assert len(set(texts)) > 1
    assert [one.text for one in generate(model, "kana", Sampling(tokens=12), 4)] == texts
    assert [one.text for one in generate(model, "kana", Sampling(tokens=12))] == texts[:1]
    others = [one.text for one in generate(model, "kana", Sampling(tokens=12, seed=2), 4)]
    assert others != texts


@pytest.mark.parametrize(
    ("tokenizer", "prompt"),
    [("char", "kana 字 lo"), ("pieces", "zuzu 字ka"), ("word", "unseen kana")],
)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_prompt_keeps_its_spelling(tokenizer: str, prompt: str, direction: Any) -> None:
    model = untrained(tokenizer)
    for one in generate(model, f"  {prompt} ", Sampling(tokens=30, direction=direction), 5):
        assert one.text.startswith(prompt) if direction == "forward" else one.text.endswith(prompt)
        if tokenizer == "word" and one.tokens:
            words = one.text.split()
            drawn = words[2:] if direction == "forward" else words[:-2]
            assert drawn == list(one.tokens)


def test_ids_are_drawn_by_their_probability() -> None:
    probability = torch.tensor([0.5, 0.2, 0.0, 0.3], dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    for sampling, expected in [
        (Sampling(), [0.5, 0.2, 0, 0.3]),
        (Sampling(temperature=0.5), [0.25 / 0.38, 0.04 / 0.38, 0, 0.09 / 0.38]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
        (Sampling(temperature=1e-300), [1, 0, 0, 0]),
        (Sampling(top_k=2), [0.625, 0, 0, 0.375]),
        (Sampling(top_k=99), [0.5, 0.2, 0, 0.3]),
        (Sampling(top_p=0.5), [1, 0, 0, 0]),
        (Sampling(top_p=0.51), [0.625, 0, 0, 0.375]),
        (Sampling(top_p=1e-9), [1, 0, 0, 0]),
        (Sampling(top_k=2, top_p=0.7), [0.625, 0, 0, 0.375]),
    ]:
        counts = Counter(draw(probability.log(), sampling, random) for _ in range(800))
        shares = [counts[index] / 800 for index in range(4)]
        assert shares == pytest.approx(expected, abs=0.06), sampling


def test_a_text_without_an_end_has_as_many_tokens_as_asked() -> None:
    model = untrained()
    found = list(generate(model, sampling=Sampling(tokens=1), number=30))
    assert {len(one.tokens) for one in found} == {0, 1}
    assert all(one.ended == (not one.tokens) for one in found)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"tokens": 0}, "tokens: 0 is too small; draw 1 token or more"),
        ({"temperature": -1.0}, "temperature: -1 is not a number from 0 on"),
        ({"temperature": float("nan")}, "temperature: nan is not a number from 0 on"),
        ({"temperature": float("inf")}, "temperature: inf is not a number from 0 on"),
        ({"top_k": 0}, "top_k: 0 is too small; keep 1 token or more"),
        ({"top_p": 0.0}, "top_p: 0 is not a probability above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p: 1.5 is not a probability above 0 and at most 1"),
        ({"seed": -1}, "seed: -1 is not a number from 0 to"),
        ({"direction": "sideways"}, "direction: 'sideways' is unknown; use forward or backward"),
    ],
)
def test_settings_out_of_range_are_told(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(GenerationError) as raised:
        generate(untrained(), sampling=replace(Sampling(), **changed))
    assert str(raised.value).startswith(problem)


def test_what_the_model_lacks_is_told() -> None:
    forward = untrained(directions="forward")
    with pytest.raises(GenerationError, match="this model reads forward only; use forward"):
        generate(forward, sampling=Sampling(direction="backward"))
    assert next(generate(forward)).tokens is not None
    with pytest.raises(GenerationError, match="number: 0 is too small"):
        generate(forward, number=0)
    with pytest.raises(UserError, match="has no output layer, so it cannot score or generate text"):
        next(generate(untrained(head=False)))
    broken = untrained()
    broken.network.recurrent.layers[0].weight_hidden.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(VectorError, match="the probabilities of the next token"):
        next(generate(broken))


def test_a_static_model_generates_nothing() -> None:
    with pytest.raises(UserError, match="a static model never has one"):
        list(generate(make_model("static"), "w1", Sampling()))
