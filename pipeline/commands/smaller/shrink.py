"""`biloom shrink`: a model folder to a smaller one, without training."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.models.model_folder import TYPE_VECTORS, WEIGHTS, load_network, save_model
from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.models.smaller.description import described, section
from lightning_modules.models.smaller.parts import Parts
from lightning_modules.models.smaller.reduce import changed_settings, reduce_model
from lightning_modules.models.smaller.request import OF_COMMAND, Reduction, SmallerError
from pipeline.console import Console, count
from pipeline.lifecycle.task_folder import CARD, make_result, write_result
from pipeline.reports.card_file import SMALLER
from preprocess.errors import one_line
from preprocess.files.manifest import read_manifest, records_of
from preprocess.files.verified import read_verified
from preprocess.shards.format import Corpus
from preprocess.tokenizers.load import load_tokenizer


class Asked(NamedTuple):
    """The options of the command, which decide its result together with the model.

    Attributes:
        layers, input_rank, vocabulary: as in `Reduction`.
        weights: type of the stored weights; None: that of the model.
        no_head: whether to leave the output layer out.
    """

    layers: int | None
    input_rank: int | None
    vocabulary: int | None
    weights: str | None
    no_head: bool


def shrink(model: str, folder: str, options: Asked, corpus: str | None = None) -> None:
    """Write a smaller model folder.

    Args:
        model: folder or URL of a finished model.
        folder: the model folder to write.
        options: what to make smaller.
        corpus: folder or URL of the prepared training corpus, which decides nothing but tells the share
            of unknown tokens; None if it is not at hand.

    Raises:
        ManifestError: there is no finished model or corpus.
        ShardError: the counts of the corpus are damaged.
        ModelError: the model is damaged.
        SmallerError: nothing is asked, an option changes nothing, or the model cannot be made smaller in
            this way.
        StageError: the folder has another result or other files, or its result is damaged.
        LockedError: another process is writing the folder.
    """
    if options == Asked(None, None, None, None, False):
        raise SmallerError(
            "nothing to make smaller; give --layers, --input-rank, --vocabulary, --weights or --no-head"
        )
    console = Console()
    manifest = read_manifest(model, "export")
    asked = {"stage": "export", "model": manifest.content, **options._asdict()}
    names = {file.name for file in manifest.files}
    make = partial(_make, model, folder, options, corpus, asked, console)
    if not make_result(folder, asked, {*names, CARD}, "a model", make, console) and corpus:
        console.warn(
            "--corpus is not read, because the model is made; name another folder to have the share of "
            "unknown tokens"
        )


def _make(
    model: str,
    folder: str,
    options: Asked,
    corpus: str | None,
    asked: dict[str, Any],
    console: Console,
) -> None:
    """Write the folder; ``asked`` is what its manifest records, and the rest as in `shrink`."""
    manifest = read_manifest(model, "export")
    network, saved, vectors = load_network(model)
    weights = network.state_dict() | ({} if vectors is None else {TYPE_VECTORS: vectors})
    present = ModelSettings.model_validate(saved)
    _check_options(options, present)
    if options.no_head and present.model.tied and present.model.input.kind == "adaptive":
        raise SmallerError(
            "--no-head: the output layer has the input vectors (model.tied); leave --no-head out"
        )
    wanted = present.model_copy(
        update={
            "head": present.head and not options.no_head,
            "weights": options.weights or present.weights,
        }
    )
    counts = None if corpus is None else _counts(corpus, present)
    reduction = Reduction(options.layers, options.input_rank, options.vocabulary, OF_COMMAND)
    parts, changes = reduce_model(Parts(wanted, weights, load_tokenizer(model)), reduction, counts)
    saved = {**saved, **changed_settings(present, parts.settings)}
    check = partial(_check_size, options, manifest.records[WEIGHTS].bytes)
    made = records_of(folder, save_model(folder, parts.weights, saved, parts.tokenizer, check))
    card = (
        read_verified(model, manifest, CARD) if CARD in manifest.records else b""
    ) + f"\n{section(changes)}".encode()
    details = {
        **saved,
        "parameters": changes.parameters[1],
        SMALLER: changes.model_dump(mode="json"),
    }
    result = write_result(folder, asked, made, details, card)
    for line in described(changes):
        console.line(line)
    before, after = (
        sum(file.bytes for file in files if file.name != CARD)
        for files in (manifest.files, result.files)
    )
    console.line(f"{one_line(folder)}: {count(after)}B, before {count(before)}B")


def _check_options(options: Asked, present: ModelSettings) -> None:
    """Refuse options that change nothing; those of a `Reduction` are checked where it is made."""
    if options.no_head and not present.head:
        raise SmallerError("--no-head: the model has no output layer; leave --no-head out")
    if options.weights == present.weights:
        raise SmallerError(
            f"--weights: the weights of the model are stored as {present.weights} already; leave --weights out"
        )


def _check_size(options: Asked, before: int, after: int) -> None:
    """Refuse weights that are larger than those of the model.

    Only another type of numbers and an input matrix of a large rank can take more room than before. Wider
    numbers do not bring back what rounding lost.
    """
    if after > before:
        remedies = [
            remedy
            for value, remedy in (
                (options.weights, "leave --weights out"),
                (options.input_rank, "choose a lower --input-rank, or leave it out"),
            )
            if value is not None
        ]
        raise SmallerError(
            f"the weights would take {after:,} bytes, more than the {before:,} bytes of the model; "
            + ", or ".join(remedies)
        )


def _counts(corpus: str, model: ModelSettings) -> npt.NDArray[np.uint64]:
    """Return how often each id of a model occurs in a corpus, (vocabulary,)."""
    opened = Corpus.open(corpus)
    if opened.manifest.details["tokenizer"] != model.tokenizer:
        raise SmallerError(
            f"--corpus: {one_line(corpus)} was prepared with another tokenizer than that of the model; name "
            "the corpus that the model was trained on, or leave --corpus out"
        )
    return opened.counts()
