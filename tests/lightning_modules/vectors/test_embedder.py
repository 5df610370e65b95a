"""BiLMEmbedder: frozen and trainable, in somebody's own network."""

import copy
import pickle
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch.utils.data import DataLoader

from biloom import BiLM, BiLMEmbedder
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.tasks.tuning import TunedModel
from lightning_modules.vectors.embedder import OtherModelError
from lightning_modules.vectors.selection import SelectionError
from lightning_modules.vectors.streams import VectorError
from lightning_modules.vectors.text_batch import BatchError, TextBatch
from preprocess.config import SentencePieceConfig, WordConfig
from preprocess.errors import UserError
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

CORPUS = ["The cat sat on the mat .", "A dog ran to the cat , twice .", "Tout été , naïve 字"]
TEXTS = [*CORPUS, "", ["zuzu", "A", "dog", "zaza"]]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]], "dropout": 0.5}  # fmt: skip
LSTM = {"kind": "lstm", "hidden": 12, "projection": 6, "dropout": 0.5}
KINDS: dict[str, dict[str, Any]] = {
    "pieces": {"tokenizer": SentencePieceConfig(vocabulary=320)},
    "spellings": {"input": SPELLING},
    "gru": {"recurrent": {"kind": "gru", "hidden": 6}},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3}},
    "forward": {"directions": "forward"},
}


def untrained(tokenizer: Any = None, content: str = "ab" * 32, **sections: Any) -> BiLM:
    torch.manual_seed(1)
    made = train_tokenizer(tokenizer or WordConfig(), CORPUS * 9)
    config = ModelConfig.model_validate({"recurrent": LSTM} | sections)
    network = BiLMNetwork(config, made.vocabulary)
    return BiLM(network, made, CleaningConfig(), "bos_eos", content)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> BiLM:
    return untrained(**KINDS[request.param])


@pytest.fixture
def own() -> BiLM:
    return untrained()


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
@pytest.mark.parametrize("trainable", [False, True])
def test_vectors_are_those_of_embed_padded_with_zeros(
    model: BiLM, unit: Any, trainable: bool
) -> None:
    embedder = BiLMEmbedder(model, 2, unit=unit, trainable=trainable)
    (first, second), mask = embedder(TEXTS)

    for row, expected in enumerate(model.embed(TEXTS, layers="mean", unit=unit)):
        units = expected.vectors.shape[1]
        assert mask[row].sum() == units
        found = first[row].detach().numpy()
        np.testing.assert_allclose(found[:units], expected.vectors[0], atol=1e-6)
        assert not found[units:].any()
    assert torch.equal(first, second)
    assert first.shape == (*mask.shape, embedder.dim)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_learned_weights_give_the_same_vectors_in_embed(model: BiLM, layer_norm: bool) -> None:
    embedder = BiLMEmbedder(model, 2, layer_norm=layer_norm, gamma=1.5)
    second: Any = embedder.mixes[1]
    with torch.no_grad():
        second.weights.copy_(torch.tensor([0.3, -0.2, 0.7])[: model.depth])
    vectors = embedder(TEXTS).vectors[1]

    embeddings = model.embed(TEXTS, layers="mix", unit="word", mix=second)
    for row, expected in enumerate(embeddings):
        found = vectors[row, : expected.vectors.shape[1]].detach().numpy()
        np.testing.assert_allclose(found, expected.vectors[0], atol=1e-5)


class Tagger(nn.Module):
    """Somebody's network."""

    def __init__(self, embedder: BiLMEmbedder) -> None:
        super().__init__()
        self.embedder, self.top = embedder, nn.Linear(embedder.dim, 3)

    def forward(self, texts: Any) -> Tensor:
        (vectors,), mask = self.embedder(texts)
        found: Tensor = self.top(vectors)[mask]
        return found


def trained_for_a_step(tagger: Tagger) -> None:
    optimizer = torch.optim.AdamW(tagger.parameters(), lr=0.1, weight_decay=0.5)
    tagger.train()
    tagger(TEXTS).square().sum().backward()
    optimizer.step()


def test_a_frozen_model_is_not_a_part_of_its_parent(own: BiLM) -> None:
    tagger = Tagger(BiLMEmbedder(own))
    before = copy.deepcopy(own.state_dict())
    vectors = own.embed(CORPUS)[0].vectors
    expected = tagger.embedder(TEXTS).vectors[0].detach()
    names = {"embedder.mixes.0.weights", "embedder.mixes.0.gamma", "top.weight", "top.bias"}
    assert {name for name, _ in tagger.named_parameters()} == names
    assert set(tagger.state_dict()) == names | {"embedder._extra_state"}

    tagger.train().requires_grad_(True)
    assert torch.equal(tagger.embedder(TEXTS).vectors[0], expected), "no dropout"
    own.train()
    assert torch.equal(tagger.embedder(TEXTS).vectors[0], expected), "whatever its own mode"
    own.eval()
    trained_for_a_step(tagger)
    assert not any(part.training for part in own.modules())
    assert all(parameter.grad is None for parameter in own.parameters())
    assert all(torch.equal(one, before[name]) for name, one in own.state_dict().items())
    np.testing.assert_array_equal(own.embed(CORPUS)[0].vectors, vectors)
    assert not torch.equal(tagger.embedder(TEXTS).vectors[0], expected), "the mix has learned"


def test_a_trainable_model_is_a_part_of_its_parent(own: BiLM) -> None:
    tagger = Tagger(BiLMEmbedder(own, trainable=True))
    before = own.embed(CORPUS)[0].vectors
    assert "embedder.trained_model.network.input.embedding.weight" in tagger.state_dict()
    tagger.train()
    assert not torch.equal(tagger(TEXTS), tagger(TEXTS)), "dropout"
    trained_for_a_step(tagger)

    assert all(p.grad is not None for p in tagger.parameters() if p.requires_grad), "as DDP demands"
    assert np.abs(own.embed(CORPUS)[0].vectors - before).max() > 0.01
    tagger.eval()
    assert torch.equal(tagger(TEXTS), tagger(TEXTS))


def test_autocast_does_not_change_a_frozen_model(own: BiLM) -> None:
    embedder = BiLMEmbedder(own)
    (expected,), _ = embedder(TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        (found,), _ = embedder(TEXTS)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_frozen_model_moves_with_its_parent(own: BiLM, dtype: torch.dtype) -> None:
    tagger = Tagger(BiLMEmbedder(own)).to(dtype)
    expected = [one.vectors[0] for one in own.embed(CORPUS, layers="mean", unit="word")]
    assert {parameter.dtype for parameter in own.parameters()} == {dtype}
    (vectors,), _ = tagger.embedder(CORPUS)

    assert vectors.dtype == dtype
    for row, vector in enumerate(expected):
        found = vectors[row, : len(vector)].detach().float().numpy()
        np.testing.assert_allclose(found, vector, atol=0.02)


def test_a_model_of_another_dtype_gives_vectors_in_that_of_the_mixes(own: BiLM) -> None:
    embedder = BiLMEmbedder(own)
    own.bfloat16()
    assert embedder(TEXTS).vectors[0].dtype == torch.float32


def test_dropout_and_normalisation(own: BiLM) -> None:
    embedder = BiLMEmbedder(own, dropout=0.5, normalize=True)
    embedder.eval()
    (vectors,), mask = embedder(TEXTS)
    assert torch.allclose(vectors.norm(dim=2), mask.float())
    embedder.train()
    (dropped,), _ = embedder(TEXTS)
    share = (dropped[mask] == 0).float().mean()
    assert 0.3 < share < 0.7


@pytest.mark.parametrize("trainable", [False, True])
def test_a_text_without_tokens_has_finite_gradients(model: BiLM, trainable: bool) -> None:
    copied = copy.deepcopy(model)
    embedder = BiLMEmbedder(copied, layer_norm=True, normalize=True, trainable=trainable)
    for texts in ([], [""], ["", "cat"]):
        (vectors,), mask = embedder(texts)
        assert vectors.shape == (len(texts), 1, embedder.dim)
        assert mask.sum() == len([text for text in texts if text])
        vectors.sum().backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in embedder.mixes.parameters())  # fmt: skip


@pytest.mark.parametrize("trainable", [False, True])
def test_input_vectors_can_be_replaced(model: BiLM, trainable: bool) -> None:
    copied = copy.deepcopy(model).double()
    embedder = BiLMEmbedder(copied, trainable=trainable).double()
    batch = embedder.batch(["cat zuzu", "mat"])
    inputs = copied.input_vectors(batch.ids, batch.spellings).detach().requires_grad_()
    (expected,), _ = embedder(batch)
    (found,), _ = embedder(batch, inputs)
    torch.testing.assert_close(found, expected)

    assert torch.autograd.gradcheck(lambda x: embedder(batch, x).vectors[0], inputs, fast_mode=True)
    copied.zero_grad()
    found.square().sum().backward()
    graded = [one.grad is not None for one in copied.network.recurrent.parameters()]
    assert any(graded) if trainable else not any(graded)
    assert all(p.grad is None for p in copied.parameters()) is not trainable


def test_a_state_of_another_language_model_is_refused(own: BiLM) -> None:
    saved = Tagger(BiLMEmbedder(own)).state_dict()
    Tagger(BiLMEmbedder(own)).load_state_dict(saved)
    other = Tagger(BiLMEmbedder(untrained(content="cd" * 32)))
    with pytest.raises(
        OtherModelError,
        match=r"^the state was saved with the language model abababababab, but the "
        "embedder has cdcdcdcdcdcd; build the embedder with the model folder that it was trained with",
    ):
        other.load_state_dict(saved)


def moved(batch: TextBatch) -> TextBatch:
    return cast("TextBatch", pickle.loads(pickle.dumps(batch.to("cpu"))))


def test_a_batch_of_a_model_with_other_ids_is_refused(own: BiLM) -> None:
    embedder = BiLMEmbedder(own, dropout=0.5).eval()
    (expected,), _ = embedder(TEXTS)
    same = untrained(content="cd" * 32)  # the same vocabulary in another folder
    assert torch.equal(embedder(moved(same.batch(TEXTS))).vectors[0], expected)

    message = (
        "the batch was made by another language model, .* make the batch again with the `batch`"
    )
    fewer = untrained(WordConfig(min_count=10))
    for other in (fewer, untrained(SentencePieceConfig(vocabulary=320))):
        for batch in (other.batch(TEXTS), moved(other.batch(TEXTS))):
            with pytest.raises(BatchError, match=message):
                embedder(batch)
    loader: Any = DataLoader(TEXTS, 2, collate_fn=fewer.batch, num_workers=1)  # type: ignore[arg-type]
    with pytest.raises(BatchError, match=message):
        TunedModel(own)(next(iter(loader)))


def test_a_batch_with_and_without_spellings_are_told_apart(own: BiLM) -> None:
    spelled = untrained(input=SPELLING)  # gives unknown words ids past the vocabulary
    for reads, other in ((own, spelled), (spelled, own)):
        with pytest.raises(BatchError, match="was made by another language model"):
            BiLMEmbedder(reads)(other.batch(TEXTS))


def test_a_batch_for_another_unit_is_refused(own: BiLM) -> None:
    with pytest.raises(
        BatchError,
        match=r"one vector for each word, but the embedder for each sentence; .* unit='word'$",
    ):
        BiLMEmbedder(own, unit="sentence")(own.batch(TEXTS))


def test_averages_of_weights_keep_the_hash_of_the_language_model(own: BiLM) -> None:
    embedder = BiLMEmbedder(own)
    for average in (get_ema_multi_avg_fn(0.9), get_swa_multi_avg_fn()):
        averaged = AveragedModel(embedder, multi_avg_fn=average, use_buffers=True)
        for _ in range(3):
            averaged.update_parameters(embedder)
        BiLMEmbedder(own).load_state_dict(averaged.module.state_dict())


def test_mixes_that_were_learned_on_a_frozen_model_are_fine_tuned_further(own: BiLM) -> None:
    frozen, trainable = Tagger(BiLMEmbedder(own)), Tagger(BiLMEmbedder(own, trainable=True))
    trained_for_a_step(frozen)
    trainable.load_state_dict(frozen.state_dict(), strict=False)
    torch.testing.assert_close(trainable.eval()(TEXTS), frozen.eval()(TEXTS))
    with pytest.raises(
        OtherModelError, match="the language model unknown, but the embedder has abab"
    ):
        frozen.load_state_dict(trainable.state_dict(), strict=False)


def test_copies_are_independent(own: BiLM) -> None:
    embedder = BiLMEmbedder(own)
    (expected,), _ = embedder(TEXTS)
    for copied in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        assert copied.model is not own
        assert torch.equal(copied(TEXTS).vectors[0], expected)


@pytest.mark.parametrize(
    "around", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")]
)
@pytest.mark.parametrize("trainable", [False, True])
def test_what_surrounds_the_embedder_changes_nothing(
    own: BiLM, trainable: bool, around: Any
) -> None:
    embedder = BiLMEmbedder(own, trainable=trainable, layer_norm=True)
    (expected,), _ = embedder(TEXTS)
    with around():
        (found,), _ = embedder(TEXTS)
    torch.testing.assert_close(found, expected)
    embedder(TEXTS).vectors[0].sum().backward()


@pytest.mark.filterwarnings("ignore")  # warnings of Dynamo about itself
def test_a_compiled_parent_runs(own: BiLM) -> None:
    tagger = Tagger(BiLMEmbedder(own))
    batch = tagger.embedder.batch(TEXTS)
    found = torch.compile(tagger, backend="eager")(batch)
    torch.testing.assert_close(found, tagger(batch))


def test_bad_arguments_and_weights_are_told(own: BiLM) -> None:
    with pytest.raises(
        SelectionError, match="unit: 'words' is unknown; use token, word or sentence"
    ):
        BiLMEmbedder(own, unit="words")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="pooling: 'max' is unknown"):
        BiLMEmbedder(own, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="mixes: 0 is too small; write 1 or more"):
        BiLMEmbedder(own, 0)
    with pytest.raises(UserError, match=r"no such folder|no finished"):
        BiLMEmbedder("a folder")
    embedder = BiLMEmbedder(own)
    with pytest.raises(TypeError, match=r"write \[text\] for a single text"):
        embedder("one text")
    with torch.no_grad():
        next(own.network.recurrent.parameters()).fill_(torch.nan)
    with pytest.raises(VectorError, match="a layer of a text: the model computes NaN"):
        embedder(TEXTS)
