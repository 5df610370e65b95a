"""The cost of a sample, and a tokenizer for it."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import (
    CharConfig,
    PrepareConfig,
    SentencePieceConfig,
    TokenizerConfig,
    WordConfig,
)
from preprocess.corpus.sampling import trial as module
from preprocess.corpus.sampling import vocabulary
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.reading import FileSample, read_sample
from preprocess.corpus.sampling.trial import run_trial
from preprocess.corpus.sampling.vocabulary import trained_on
from preprocess.reading.listing import list_source
from preprocess.tokenizers.load import load_tokenizer, train_tokenizer

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "te") for b in ("ra", "so", "pi", "du")]


def lines(number: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=20)) + f" {n}" for n in range(number)]


def samples_of(
    folder: Path, texts: list[str], **settings: Any
) -> tuple[list[FileSample], PrepareConfig]:
    path = folder / "a.txt"
    path.write_text("".join(f"{text}\n" for text in texts))
    config = PrepareConfig(input=str(path), **settings)
    files = [list_source(source) for source in config.sources]
    places = choose_places(config.sources, files, 1, SampleSize())
    return read_sample(places, config, config.sources), config


def test_the_cost_of_a_whole_text(tmp_path: Path) -> None:
    texts = lines(500)
    samples, config = samples_of(tmp_path, [*texts, *texts[:100]])
    costs = run_trial(samples, config, CharConfig(), None, 1, 10**9)
    assert costs
    text = "".join([*texts, *texts[:100]])
    assert costs.text_bytes == len(text)
    assert costs.documents == 600
    assert costs.tokens == len(text) + 600  # the space that SentencePiece puts before each
    repeated = len("".join(texts[:100])) + 100
    assert costs.kept_tokens == pytest.approx(1 - repeated / costs.tokens)
    assert costs.first_seconds > 0
    assert costs.rest_seconds > 0
    # A row and a key of each document, and the copies of its hash and origin.
    assert 20 * 600 < costs.work_bytes < 100 * 600
    assert 4 * 500 < costs.result_bytes < 40 * 600
    assert costs.made.tokenizer.kind == "char"


def test_near_duplicates_cost_keys_and_are_dropped(tmp_path: Path) -> None:
    texts = [f"{line} {n % 2}" for line in lines(200) for n in range(2)]
    samples, config = samples_of(tmp_path, texts)
    off = run_trial(samples, config, CharConfig(), None, 1, 10**9)
    near = PrepareConfig(input=config.input, near_duplicates={"similarity": 0.8})
    on = run_trial(samples, near, CharConfig(), None, 1, 10**9)
    assert on
    assert off
    assert on.work_bytes > 2 * off.work_bytes
    assert on.kept_tokens < 0.7
    assert off.kept_tokens == 1
    assert not on.has_links


def test_a_part_of_a_sample_is_enough(tmp_path: Path) -> None:
    samples, config = samples_of(tmp_path, lines(20_000))
    costs = run_trial(samples, config, CharConfig(), None, 1, 200_000)
    assert costs
    assert 200_000 <= costs.text_bytes <= 600_000
    assert costs.tokens == pytest.approx(costs.text_bytes, rel=0.01)


def test_a_finished_tokenizer_is_used_and_kept(tmp_path: Path) -> None:
    samples, config = samples_of(tmp_path, lines(100))
    made = trained_on(lines(100), WordConfig())
    folder = str(tmp_path / "tokenizer")
    made.tokenizer.save(folder)
    costs = run_trial(samples, config, CharConfig(), (folder, "content"), 1, 10**9)
    assert costs
    assert costs.made.tokenizer.kind == "word"
    assert costs.tokens == 100 * 21
    assert load_tokenizer(folder).kind == "word"


def test_a_sample_without_text_has_no_cost(tmp_path: Path) -> None:
    samples, config = samples_of(tmp_path, ["", " "])
    assert run_trial(samples, config, CharConfig(), None, 1, 1000) is None
    samples = [replace(sample, blocks=[]) for sample in samples]
    assert run_trial(samples, config, CharConfig(), None, 1, 1000) is None


def test_blocks_of_files_that_no_place_reached_are_left_out(tmp_path: Path) -> None:
    samples, _ = samples_of(tmp_path, lines(10))
    other = replace(samples[0], places=replace(samples[0].places, hits=0))
    assert module._chosen([other], 1000, 1) == {}
    assert module._chosen(samples, 1000, 1) == {0: samples[0].blocks}


@pytest.mark.parametrize("config", [CharConfig(), WordConfig(), SentencePieceConfig(model="bpe")])
def test_a_tokenizer_is_trained_with_its_settings(config: TokenizerConfig) -> None:
    made = trained_on(lines(300), config)
    assert made.factor == 1
    assert made.tokenizer.kind == config.kind
    assert (made.growth > 0) == isinstance(config, WordConfig)
    assert made.seconds > 0


def test_words_grow_with_the_text_as_by_heaps_law() -> None:
    distinct = [f"word{n}" for n in range(1000)]
    assert trained_on(distinct, WordConfig()).growth == 1
    assert trained_on(["the same words"] * 100, WordConfig()).growth == 0


def test_the_tokens_of_a_unigram_model_are_estimated_by_a_larger_bpe_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = lines(3000)
    settings = SentencePieceConfig(vocabulary=400)
    monkeypatch.setattr(vocabulary, "TRAINED_BYTES", 3_000)
    made = trained_on(texts, settings)
    held_out = texts[:: vocabulary.HELD_OUT]
    rest = [text for n, text in enumerate(texts) if n % vocabulary.HELD_OUT]
    bpe = train_tokenizer(settings.model_copy(update={"model": "bpe"}), rest)
    tokens = [sum(map(len, one.encode(held_out))) for one in (made.tokenizer, bpe)]
    assert made.factor == tokens[1] / tokens[0] != 1
