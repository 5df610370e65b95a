"""Explanations of a tagger with random weights."""

from typing import Any

import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.tasks.explanation.explained import ExplainError
from lightning_modules.tasks.explanation.tagged import TaggerExplainer
from lightning_modules.tasks.features import features_of
from lightning_modules.tasks.tagging.config import TaggerConfig
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.saved import TaskTagger
from lightning_modules.tasks.tagging.schemes import detect_scheme
from lightning_modules.tasks.tagging.spans import spans_of
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.tagging.trained import TaggerParts, TrainedTagger
from preprocess.config import SentencePieceConfig
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TOKENS = ("Ann", "Bob", "went", "far", "to", "Oslo", ".")
SENTENCE = TaggedSentence(TOKENS, (), "line 1")


@pytest.fixture(scope="module")
def model() -> BiLM:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(SentencePieceConfig(vocabulary=300), [" ".join(TOKENS)] * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent})
    return BiLM(BiLMNetwork(config, tokenizer.vocabulary), tokenizer, CleaningConfig(), "bos_eos")


def tagger(model: BiLM, *tags: str) -> TaskTagger:
    torch.manual_seed(3)
    tag_set = TagSet.of(detect_scheme([tags]), "auto")
    config = TaggerConfig(hidden=8, word_size=8, filters=4, character_size=4)
    parts = TaggerParts(config, Lexicon.of([TOKENS]), tag_set, True)
    network = parts.network(model.depth, model.dim)
    with torch.no_grad():
        network.output.weight.mul_(10)
    trained = TrainedTagger(parts, network.eval())
    return TaskTagger(trained, "space", TaggedOptions(), False, model.depth, model.dim)


NAMES = ("B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O")


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_each_span_has_the_attributions_of_the_words(model: BiLM, method: Any) -> None:
    made = tagger(model, *NAMES)
    found = TaggerExplainer(made, model, method, None, 1000).explain(SENTENCE)
    [tags] = made.predict([TOKENS], features_of(model, None, [[*TOKENS]], "word"))
    spans = spans_of(tags)

    assert len(spans) > 1
    explained = [
        (s["first_token"], s["last_token"] + 1, s["label"]) for s in found.facts["explained"]
    ]
    assert explained == [tuple(span) for span in spans]
    assert [found.text[start:end] for start, end in found.spans] == [*TOKENS]
    for row, fact in zip(found.rows, found.facts["explained"], strict=True):
        assert row.name.startswith(f"{fact['label']} ({TOKENS[fact['first_token']]}")
        if method == "integrated_gradients":
            change = fact["score"] - fact["baseline"]
            assert row.values.sum() == pytest.approx(change, abs=0.02 * max(1, abs(change)))


def test_words_are_explained_if_tags_are_no_spans(model: BiLM) -> None:
    made = tagger(model, "NOUN", "VERB", "PUNCT")
    explainer = TaggerExplainer(made, model, "gradient_x_input", None, 1000)
    found = explainer.explain(SENTENCE)
    assert len(found.rows) == len(TOKENS)
    label = found.facts["explained"][0]["label"]
    only = TaggerExplainer(made, model, "gradient_x_input", label, 1000).explain(SENTENCE)
    assert {fact["label"] for fact in only.facts["explained"]} == {label}


def test_an_unknown_label_is_refused(model: BiLM) -> None:
    for tags, known in ((NAMES, "LOC, PER"), (("NOUN", "VERB"), "NOUN, VERB")):
        with pytest.raises(ExplainError, match=f"no label 'PERSON'; its labels are {known}"):
            TaggerExplainer(tagger(model, *tags), model, "occlusion", "PERSON", 3)
    TaggerExplainer(tagger(model, *NAMES), model, "occlusion", "LOC", 3)


def test_what_is_not_explained_is_told(model: BiLM) -> None:
    explainer = TaggerExplainer(tagger(model, *NAMES), model, "occlusion", None, 3)
    found = explainer.explain(SENTENCE)
    assert found.title.endswith("; its first 3 of 7 words were read")
    assert found.text == "Ann Bob went"
    empty = TaggedSentence((), (), "line 2", problem="empty text")
    assert explainer.explain(empty).title == "not explained: empty text"
