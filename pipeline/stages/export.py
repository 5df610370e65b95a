"""The export stage: checkpoint -> model folder."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.models.model_folder import (
    TYPE_VECTORS,
    checkpoint_weights,
    network_of_checkpoint,
    save_model,
)
from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.models.smaller.description import described
from lightning_modules.models.smaller.parts import HEAD, Parts
from lightning_modules.models.smaller.reduce import changed_settings, reduce_model
from lightning_modules.models.smaller.request import Reduction
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.vectors.type_vectors import vectors_of_vocabulary
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.checkpoints import TrainedCheckpoint
from pipeline.lifecycle.inputs import tokenizer_of, trained_checkpoint
from pipeline.lifecycle.stage import Made, StageFolder
from pipeline.lifecycle.task_folder import CARD
from pipeline.reports.card_file import SMALLER, card_of, evaluation_of, training_corpus
from pipeline.stages.checks import check_parts
from preprocess.files import storage
from preprocess.files.manifest import Manifest, content_hash, recorded
from preprocess.shards.format import ShardError
from preprocess.tokenizers.load import Tokenizer, load_tokenizer

SETTINGS = ("model", "vocabulary", "cutoffs", "boundary", "cleaning", "tokenizer")
"""Details of the training that the model folder keeps."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Write the weights, the tokenizer, the settings and a model card into one folder.

    Raises:
        ModelError: export.weights does not suit the model.
        SmallerError: export.layers, export.input_rank or export.vocabulary does not suit the model.
        StageError: the checkpoint that the config names does not exist, the tokenizer is not the one that
            the model was trained with, or export.head or export.type_vectors does not suit the model.
    """
    checkpoint = trained_checkpoint(config, "export")
    folder, trained = checkpoint.folder, checkpoint.manifest
    content = trained.details["tokenizer"]
    tokenizer = load_tokenizer(tokenizer_of(config, content, f"{folder} was trained with"))
    export = config.export
    saved = {key: trained.details[key] for key in SETTINGS} | {
        "head": export.head,
        "weights": export.weights,
        "type_vectors": export.type_vectors,
        "warm_up": export.warm_up,
    }
    weights = _weights(config, checkpoint, tokenizer)
    details = {**saved, "parameters": trained.details["parameters"]}
    reduction = Reduction(export.layers, export.input_rank, export.vocabulary)
    if not reduction.is_empty:
        counts = _counts(config, trained, console)
        settings = ModelSettings.model_validate(saved)
        parts, changes = reduce_model(Parts(settings, weights, tokenizer), reduction, counts)
        weights, tokenizer = parts.weights, parts.tokenizer
        saved |= changed_settings(settings, parts.settings)
        smaller = changes.model_dump(mode="json")
        details = {**saved, "parameters": changes.parameters[1], SMALLER: smaller}
        for line in described(changes):
            console.line(line)
    elif not export.head:
        weights = {name: w for name, w in weights.items() if not name.startswith(HEAD)}
    names = save_model(place.unpublished, weights, saved, tokenizer)
    made = [place.record(name) for name in names]
    card = card_of(config, checkpoint, details, evaluation_of(config, checkpoint, console))
    storage.write_bytes(place.new_file(CARD), card)
    size = sum(file.bytes for file in made)
    console.line(
        f"{count(details['parameters'])} parameters of {checkpoint.described}, {count(size)}B"
    )
    files = (*made, place.record(CARD))
    return Made(files, details, stats={"bytes": size}, content=content_hash(made))


def _weights(
    config: Config, checkpoint: TrainedCheckpoint, tokenizer: Tokenizer
) -> Mapping[str, Tensor]:
    """Return the network's tensors, with the output layer, and those to store beside it, in float32.

    Raises:
        StageError: export.head or export.type_vectors does not suit the model.
    """
    folder, details = checkpoint.folder, checkpoint.manifest.details
    weights = checkpoint_weights(folder, checkpoint.name)
    model = recorded(ModelConfig, details, "model")
    check_parts(config.export, model)
    if config.export.type_vectors:
        network = network_of_checkpoint(folder, details, checkpoint.name)
        assert isinstance(network.input, CharCNN)
        weights[TYPE_VECTORS] = vectors_of_vocabulary(network.input, tokenizer)
    return weights


def _counts(config: Config, trained: Manifest, console: Console) -> npt.NDArray[np.uint64] | None:
    """Return how often each id occurs in the training corpus, or None if it is not available."""
    corpus = training_corpus(config, trained)
    if corpus is None:
        return None
    try:
        return corpus.counts()
    except ShardError as error:
        console.warn(f"the share of unknown tokens is not known: {error}")
        return None
