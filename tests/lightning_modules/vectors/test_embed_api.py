"""The arguments of BiLM.embed, and what the vectors of a text depend on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.config import MixConfig, ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.vectors import batches
from lightning_modules.vectors.embedder import BiLMEmbedder
from lightning_modules.vectors.pretrained import WarmUpError
from lightning_modules.vectors.selection import SelectionError
from preprocess.config import SentencePieceConfig, WordConfig
from preprocess.errors import UserError
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["The cat sat on the mat .", "A dog ran to the cat , twice .", "Tout été , naïve 字"]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}


def untrained(tokenizer: str = "word", warm_up: str | None = None, **sections: Any) -> BiLM:
    torch.manual_seed(1)
    kinds: dict[str, Any] = {"word": WordConfig(), "pieces": SentencePieceConfig(vocabulary=320)}
    made = train_tokenizer(kinds[tokenizer], TEXTS * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    network = BiLMNetwork(config, made.vocabulary)
    return BiLM(network, made, CleaningConfig(), "bos_eos", warm_up=warm_up)


INPUTS = {"ids": {}, "spellings": {"input": SPELLING}, "gru": {"recurrent": {"kind": "gru", "hidden": 6}}, "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3}}, "sru": {"recurrent": {"kind": "sru", "hidden": 6}}}  # fmt: skip


@pytest.fixture(scope="module", params=INPUTS)
def model(request: pytest.FixtureRequest) -> BiLM:
    return untrained(**INPUTS[request.param])


def test_vectors_have_the_same_bits_in_batches_of_the_same_shape(model: BiLM) -> None:
    first = model.embed(TEXTS)
    model.embed(["quite other words", "kana"] * 20)
    again = model.embed(TEXTS)
    turned = model.embed([TEXTS[1], TEXTS[2], TEXTS[0]])

    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.vectors, two.vectors)
    for one, place in zip(first, (2, 0, 1), strict=True):
        assert np.array_equal(one.vectors, turned[place].vectors)


@pytest.mark.parametrize("batch_tokens", [1, 9, 20, 100_000])
def test_vectors_agree_in_batches_of_other_shapes(model: BiLM, batch_tokens: int) -> None:
    texts = [*TEXTS, "", "zuzu", *TEXTS, " ".join(TEXTS * 5)]
    expected = [model.embed([text])[0].vectors for text in texts]

    for found, one in zip(model.embed(texts, batch_tokens), expected, strict=True):
        np.testing.assert_allclose(found.vectors, one, atol=1e-5)


def test_embed_and_the_forward_pass_agree(model: BiLM) -> None:
    ids = torch.from_numpy(model.tokenizer.encode([TEXTS[0]])[0]).long()[None]
    layers = model(ids, torch.tensor([ids.shape[1]])).detach().numpy()

    np.testing.assert_allclose(model.embed([TEXTS[0]])[0].vectors, layers[:, 0], atol=1e-6)


def test_a_stream_of_texts_gives_the_same_vectors_as_a_list(
    model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW_CHARACTERS", (30, 30))
    texts = [*TEXTS * 3, ["A", "dog"], ""]
    read = 0

    def endless() -> Any:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    stream = model.iter_embed(endless(), layers="top")
    first = next(stream)
    assert read < len(texts), "the stream is read no further than needed"
    found = [first, *stream]
    for one, other in zip(found, model.embed(texts, layers="top"), strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-5)


def test_vectors_that_exceed_memory_bytes_are_kept_in_a_file(model: BiLM) -> None:
    text = " ".join(TEXTS * 10)
    [small] = model.embed([text])
    [large] = model.embed([text], memory_bytes=1000)
    [mixed] = model.embed([text], memory_bytes=1000, layers="mean", unit="word")

    assert isinstance(large.vectors, np.memmap)
    assert isinstance(mixed.vectors, np.memmap)
    np.testing.assert_allclose(large.vectors, small.vectors, atol=1e-6)
    assert not isinstance(small.vectors, np.memmap)


def test_a_word_has_the_forward_half_of_its_last_piece_and_the_backward_half_of_its_first() -> None:
    model = untrained("pieces")
    [tokens] = model.embed([TEXTS[1]])
    [words] = model.embed([TEXTS[1]], unit="word")
    [listed] = model.embed([TEXTS[1].split()], unit="word")
    [sentence] = model.embed([TEXTS[1]], unit="sentence", pooling="direction")

    assert [word.spelling for word in words.tokens] == TEXTS[1].split()
    assert len(tokens.tokens) > len(words.tokens) == words.vectors.shape[1]
    np.testing.assert_array_equal(listed.vectors, words.vectors)
    ran = TEXTS[1].index("ran")
    inside = [n for n, t in enumerate(tokens.tokens) if t.start < ran + 3 and t.end > ran]
    assert len(inside) > 1
    np.testing.assert_array_equal(words.vectors[:, 2, :6], tokens.vectors[:, inside[-1], :6])
    np.testing.assert_array_equal(words.vectors[:, 2, 6:], tokens.vectors[:, inside[0], 6:])
    np.testing.assert_array_equal(sentence.vectors[:, 0, :6], tokens.vectors[:, -1, :6])
    np.testing.assert_array_equal(sentence.vectors[:, 0, 6:], tokens.vectors[:, 0, 6:])
    assert sentence.tokens[0].spelling == TEXTS[1]
    [mean] = model.embed([TEXTS[1]], unit="sentence", pooling="mean")
    np.testing.assert_allclose(mean.vectors[:, 0], tokens.vectors.mean(1), atol=1e-6)


def test_learned_weights_mix_the_layers(model: BiLM) -> None:
    mix = ScalarMix(model.depth, "text", [0.3, -0.2, 0.7], gamma=1.5)
    [found] = model.embed([TEXTS[0]], layers="mix", mix=mix)
    [same] = model.embed(
        [TEXTS[0]],
        layers="mix",
        mix=MixConfig(weights=(0.3, -0.2, 0.7), gamma=1.5, layer_norm=True),
    )
    [layers] = model.embed([TEXTS[0]])

    expected = mix(torch.from_numpy(layers.vectors)[:, None]).detach().numpy()
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    np.testing.assert_allclose(same.vectors, found.vectors, atol=1e-6)


def test_a_warm_up_reads_the_warm_up_text_of_the_model_first() -> None:
    warm, cold = untrained(warm_up=TEXTS[1]), untrained()
    [cold_vectors] = cold.embed([TEXTS[0]])
    [found] = warm.embed([TEXTS[0]], warm_up=True)

    np.testing.assert_array_equal(warm.embed([TEXTS[0]])[0].vectors, cold_vectors.vectors)
    np.testing.assert_array_equal(found.vectors[0], cold_vectors.vectors[0])
    assert not np.allclose(found.vectors[1:], cold_vectors.vectors[1:], atol=1e-3)
    # As in training: one text after the other, each after its boundary token.
    before, after = warm.starts
    network = warm.network
    texts = [warm.tokenizer.encode([text])[0].tolist() for text in (TEXTS[1], TEXTS[0])]
    forward = [one for text in texts for one in (before, *text)]
    backward = [one for text in texts for one in (after, *text[::-1])]
    streams = torch.tensor([forward, backward])[:, :, None]
    with torch.inference_mode():
        layers, _ = network.layers(streams, network.zero_state(1))
    count = len(texts[1])
    top = layers[-1][:, -count:, 0].numpy()
    np.testing.assert_allclose(found.vectors[-1, :, :6], top[0], atol=1e-6)
    np.testing.assert_allclose(found.vectors[-1, ::-1, 6:], top[1], atol=1e-6)


def test_truncated_words_are_counted() -> None:
    model = untrained(input=SPELLING)
    counts = [one.truncated for one in model.embed(["kana " + "z" * 11, "kana", "字字字字 z" * 2])]

    assert counts == [1, 0, 2]
    assert untrained().embed(["z" * 100])[0].truncated == 0


def test_wrong_arguments_are_refused(model: BiLM) -> None:
    with pytest.raises(
        TypeError, match=r"a list of texts, not str; write \[text\] for a single text"
    ):
        model.embed("a text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a text must be a string or a list of strings"):
        model.embed([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a text must be a string or a list of strings"):
        next(model.iter_embed([3]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a list of texts, not str"):
        next(model.iter_embed("a text"))
    with pytest.raises(SelectionError, match="no layer 7"):
        model.embed(["a"], layers=[7])
    for layers in (1.5, None, True, [0, "top"], {}):
        with pytest.raises(SelectionError, match=r"layers: .* (is unknown; use all|list is empty)"):
            model.embed(["a"], layers=layers)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="batch_tokens: 0 is too small; write 1 or more"):
        model.embed(["a"], 0)
    with pytest.raises(WarmUpError, match=r"no warm-up text; export it with export\.warm_up"):
        model.embed(["a"], warm_up=True)
    with pytest.raises(
        SelectionError, match="with layer_norm='batch', the vectors of a text depend on"
    ):
        model.embed(["a"], layers="mix", mix=ScalarMix(model.depth, "batch"))


NASTY = ["", " \t\n ", "\ud800", "\x00\x01", "<s>", "</s> <unk> <s>", "\u200b", "\r\n", "é" * 300, "z" * 3000]  # fmt: skip


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
@pytest.mark.parametrize("tokenizer", ["word", "pieces"])
def test_unusual_texts_are_embedded(unit: Any, tokenizer: str) -> None:
    model = untrained(tokenizer)
    as_texts = model.embed(NASTY, unit=unit)
    as_words = model.embed([[text, text] for text in NASTY], unit=unit)

    for found in (*as_texts, *as_words):
        assert found.vectors.shape == (3, len(found.tokens), 12)
        assert np.isfinite(found.vectors).all()
    if unit == "word":
        assert all(found.vectors.shape[1] == 2 for found in as_words)


def test_a_model_folder_has_a_warm_up_text_only_if_exported_with_one(trained: Path) -> None:
    assert BiLM.from_pretrained(trained / "export").warm_up is None


def test_an_embedding_is_shown_in_one_line() -> None:
    model = untrained()
    [short, long, empty] = model.embed([TEXTS[0], "word\t" * 99, ""])
    assert repr(short) == "Embedding(3 layers, 7 tokens, dim 12: 'The cat sat on the mat .')"
    assert repr(long) == f"Embedding(3 layers, 99 tokens, dim 12: '{('word ' * 12)[:57]}...')"
    assert repr(empty) == "Embedding(3 layers, 0 tokens, dim 12: '')"
    [top] = model.embed(["one"], layers="top")
    assert repr(top) == "Embedding(1 layer, 1 token, dim 12: 'one')"


def test_a_segmenter_finds_the_words_that_get_vectors() -> None:
    model = untrained("pieces")
    text = "我在银行存钱"
    [whole] = model.embed([text], layers="top")
    [found] = model.embed([text], layers="top", unit="word", pooling="mean", segmenter="jieba")

    assert [token.spelling for token in found.tokens] == ["我", "在", "银行", "存钱"]
    assert not found.lacks_spaces
    spans = model.reader.read([text], "jieba")[0].word_spans()
    means = [whole.vectors[0, a : b + 1].mean(0) for a, b in zip(*spans, strict=True)]
    np.testing.assert_allclose(found.vectors[0], means, atol=1e-6)


def test_words_of_text_without_spaces_are_told_and_counted() -> None:
    model = untrained("pieces")
    with pytest.warns(UserWarning, match="1 of 2 texts have no spaces between words") as told:
        found = model.embed(["我在银行存钱", "The cat"], unit="word")
    model.embed(["我在银行存钱"], unit="word")  # a second warning would be an error
    assert told[0].filename == __file__
    assert [one.lacks_spaces for one in found] == [True, False]
    # Other units do not depend on spaces.
    assert not model.embed(["我在银行存钱"], unit="sentence")[0].lacks_spaces


def test_a_segmenter_is_for_words() -> None:
    model = untrained()
    with pytest.raises(SelectionError) as raised:
        model.embed(["a"], segmenter="jieba")
    assert str(raised.value) == (
        "segmenter: jieba finds words, but the unit is token; use the unit word, or no segmenter"
    )
    with pytest.raises(UserError, match="segmenter: 'other' is unknown; use jieba, "):
        model.embed(["a"], unit="word", segmenter="other")


def test_batches_and_embedders_take_a_segmenter() -> None:
    model = untrained("pieces")
    assert model.batch(["我在银行存钱"], segmenter="jieba").units.tolist() == [4]
    embedder = BiLMEmbedder(model, segmenter="jieba")
    assert embedder(["我在银行存钱", "我"]).mask.sum(1).tolist() == [4, 1]
    with pytest.warns(UserWarning, match="1 of 1 texts have no spaces between words"):
        assert model.batch(["我在银行存钱"]).units.tolist() == [1]
