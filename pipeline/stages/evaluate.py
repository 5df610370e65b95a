"""The evaluate stage: perplexity of held-out text, over the full vocabulary."""

import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_modules.evaluation.held_out import CARRIED, TEXT_BY_TEXT, Evaluation, HeldOut
from lightning_modules.evaluation.perplexity import evaluate
from lightning_modules.models.model_folder import network_of_checkpoint
from lightning_modules.models.stored_network import first_not_finite
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import word_encoder
from lightning_modules.nn.window import Types
from pipeline.config.schema import Config
from pipeline.console import Bar, Console
from pipeline.lifecycle.inputs import (
    evaluation_corpus,
    stage_folder,
    tokenizer_of,
    trained_checkpoint,
)
from pipeline.lifecycle.stage import HELD, REPLACES, Made, StageError, StageFolder
from pipeline.reports.assessment import show_concerns
from pipeline.reports.card_file import update_card
from pipeline.reports.perplexity_tables import OTHERS, evaluations, show_evaluation
from pipeline.stages.checks import check_evaluated
from pipeline.training.device import resolve_device
from preprocess.files import storage
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import NAME, ManifestError, read_manifest
from preprocess.shards.format import Corpus
from preprocess.shards.held_out_rows import contiguous_rows, rows_of_documents
from preprocess.shards.held_out_windows import HeldOutIds, HeldOutWindows
from preprocess.shards.stream import Int64Ids, TokenStream, boundary_ids, target_counts
from preprocess.tokenizers.load import load_tokenizer

UNROLL = 64
"""Length of a window in tokens."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Evaluate the trained checkpoint on one split of a corpus.

    The split is read twice: with the state carried from document to document, and text by text from
    the zero state. The figures are those of the state in training; "by_state" has those of both.

    Raises:
        StageError: the corpus has other token ids than the model, or the model was trained on it.
    """
    settings = config.evaluate
    corpus = Corpus.open(evaluation_corpus(config), config.train.cache_bytes)
    checkpoint = trained_checkpoint(config, "evaluate")
    folder, manifest = checkpoint.folder, checkpoint.manifest
    trained = manifest.details
    of_corpus = corpus.manifest.details["tokenizer"], corpus.manifest.content
    of_model = trained["tokenizer"], trained["corpus"]
    check_evaluated(corpus.folder, *of_corpus, settings.split, *of_model)
    shards = corpus.shards(settings.split)
    kept = _kept(place, settings.split, manifest.content, console)
    details: dict[str, Any] = {"split": settings.split, "tokens": 0, **kept}
    if not corpus.totals(settings.split)["documents"]:
        console.warn(
            f"nothing to evaluate: the {settings.split} split of {corpus.folder} is empty; prepare a "
            f"corpus with {_text_for(settings.split)}"
        )
        return Made((), details, stats=details, content=fingerprint(details))
    network = network_of_checkpoint(folder, trained, checkpoint.name)
    network.to(resolve_device(config.train.device))
    stream = TokenStream(shards, trained["boundary"])
    console.line(f"weights of {checkpoint.described}")
    windows = {
        state: HeldOutWindows(stream, divide(stream, settings.rows), UNROLL)
        for state, divide in ((CARRIED, contiguous_rows), (TEXT_BY_TEXT, rows_of_documents))
    }
    own = TEXT_BY_TEXT if trained.get("reset_state") else CARRIED
    ranks, encode = _ranks(config, corpus, trained, network), _encoder(config, trained, network)
    results: dict[str, Evaluation] = {}
    with console.bar("evaluate", sum(map(len, windows.values()))) as bar:
        done = count()
        for state, of_state in windows.items():
            results[state] = evaluate(
                network,
                _with_progress(of_state, bar, done),
                HeldOut.of(shards),
                ranks if state == own else None,
                boundary_ids(trained["boundary"]) if state == TEXT_BY_TEXT else None,
                encode,
            )
            _check_finite(folder, settings.split, results[state], network)
    details |= results[own].figures()
    details |= {"state": own, "by_state": {name: one.losses() for name, one in results.items()}}
    show_evaluation(console, details)
    show_concerns(console, details)
    # Before this result is published: if this process is killed in between, the stage is run again
    # and writes the same card.
    update_card(config, checkpoint, details, console)
    return Made((), details, stats=details, content=fingerprint(details))


def _with_progress(windows: HeldOutWindows, bar: Bar, done: Iterator[int]) -> Iterator[HeldOutIds]:
    for window in windows:
        bar.update(next(done))
        yield window


def _kept(place: StageFolder, split: str, checkpoint: str, console: Console) -> dict[str, Any]:
    """Return the entries of the details that hold the finished results of other splits.

    Results of an earlier checkpoint are not kept, because they are not the model's.
    """
    if not storage.exists(place.file(NAME)):
        return {}
    former = read_manifest(place.folder, "evaluate")
    found = evaluations(former.details)
    if former.asked["checkpoint.content"] != checkpoint:
        for one in found:
            if one["split"] != split:
                console.warn(
                    f"the result of the {one['split']} split was that of an earlier checkpoint and is "
                    f"dropped; evaluate it again with evaluate.split={one['split']}"
                )
        return {}
    asked = [*former.details.get(HELD, ()), former.asked]
    return {
        OTHERS: [
            {k: v for k, v in one.items() if k not in (OTHERS, HELD, REPLACES)} for one in found
        ],
        HELD: asked,
    }


def _check_finite(folder: str, split: str, result: Evaluation, network: BiLMNetwork) -> None:
    """Check that the loss is a number.

    Raises:
        StageError: the loss is NaN or infinite. The message names the first weight that is not finite.
    """
    if all(map(math.isfinite, result.total.nats)):
        return
    name = first_not_finite(network.state_dict())
    cause = f"the weights '{name}' hold NaN or infinity" if name else "its vectors overflow"
    raise StageError(
        f"{folder}: the loss of the {split} split is not a finite number, because {cause}; train again, for "
        "example with a lower train.learning_rate or train.clip_norm"
    )


def _text_for(split: str) -> str:
    source = f"a source of split: {split}"
    return (
        source if split == "train" else f"{source}, a larger prepare.{split}_fraction or more text"
    )


def _ranks(
    config: Config, corpus: Corpus, trained: dict[str, Any], network: BiLMNetwork
) -> npt.NDArray[np.int64] | None:
    """Return the frequency rank of each id in the training corpus, (output vocabulary,).

    None if the training corpus is not available.
    """
    if corpus.manifest.content != trained["corpus"]:
        try:
            corpus = Corpus.open(stage_folder(config, "prepare", config.train.corpus))
        except ManifestError:
            return None
        if corpus.manifest.content != trained["corpus"]:
            return None
    size = network.output_vocabulary
    return ranks_of(target_counts(corpus, trained["boundary"], network.directions, size))


def _encoder(
    config: Config, trained: dict[str, Any], network: BiLMNetwork
) -> Callable[[Int64Ids], Types] | None:
    """Return a function from ids to the spellings of their types, for a character CNN input."""
    if not isinstance(network.input, CharCNN):
        return None
    used_by = "the model was trained with, which spells its words"
    tokenizer = load_tokenizer(tokenizer_of(config, trained["tokenizer"], used_by))
    size = network.input.max_characters
    return word_encoder(tokenizer.spelling, tokenizer.vocabulary, size)
