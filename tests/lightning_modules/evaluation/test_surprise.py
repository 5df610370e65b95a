"""The surprise of each token, compared with the score of the text."""

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation import scoring
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.evaluation.surprise import Surprise, surprises
from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.config import WordConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["kana lori mele", "", "mele zuzu kana lori " * 4, "kana"]


def untrained(directions: str = "both") -> BiLM:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(WordConfig(), ["kana kana lori mele"])
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent, "directions": directions})
    network = BiLMNetwork(config, tokenizer.vocabulary)
    return BiLM(network, tokenizer, CleaningConfig(), "bos_eos")


def surprise_of(model: BiLM, texts: list[str], batch_tokens: int = 4096) -> list[Surprise]:
    found = dict(surprises(model, model.reader.read(texts), batch_tokens))
    return [found[number] for number in range(len(texts))]


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_the_surprises_of_a_text_add_up_to_its_score(
    batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 3)
    model = untrained()
    found = surprise_of(model, TEXTS, batch_tokens)
    for text, one, score in zip(TEXTS, found, score_texts(model, TEXTS), strict=True):
        assert one.backward is not None
        assert one.forward.shape == one.backward.shape == (len(text.split()),)
        assert one.forward.sum() + one.ends[0] == pytest.approx(-score.forward, rel=1e-5)
        assert one.backward.sum() + one.ends[1] == pytest.approx(-score.backward, rel=1e-5)


def test_a_surprise_depends_on_what_its_direction_has_read() -> None:
    one, other = surprise_of(untrained(), ["kana lori mele kana", "kana lori kana kana"])
    assert one.backward is not None
    assert other.backward is not None
    np.testing.assert_allclose(one.forward[:2], other.forward[:2], rtol=1e-5)
    np.testing.assert_allclose(one.backward[3:], other.backward[3:], rtol=1e-5)
    assert (np.abs(one.forward - other.forward)[2:] > 1e-5).all()
    assert (np.abs(one.backward - other.backward)[:3] > 1e-5).all()


def test_a_forward_model_has_no_backward_surprise() -> None:
    [found] = surprise_of(untrained("forward"), ["kana lori"])
    assert found.backward is None
    assert len(found.ends) == 1
