"""Stage: checkpoint -> model folder."""

from typing import Any

from torch import Tensor

from lightning_modules.config import AdaptiveInputConfig, ModelConfig
from lightning_modules.models.model_folder import (
    TYPE_VECTORS,
    ModelError,
    checkpoint_weights,
    network_of_checkpoint,
    save_model,
)
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.vectors.type_vectors import vectors_of_vocabulary
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.registry import STAGES, stage_folder, tokenizer_of
from pipeline.lifecycle.stage import Made, StageFolder
from pipeline.reports.model_card import model_card
from preprocess.files import storage
from preprocess.files.manifest import (
    FileRecord,
    Manifest,
    ManifestError,
    content_hash,
    hash_file,
    read_manifest,
)
from preprocess.shards.format import Corpus
from preprocess.tokenizers.load import Tokenizer, load_tokenizer

SETTINGS = ("model", "vocabulary", "cutoffs", "boundary", "cleaning", "tokenizer")
CARD = "README.md"


def make(config: Config, place: StageFolder, console: Console) -> Made:
    folder = stage_folder(config, "train", config.export.checkpoint)
    trained = read_manifest(folder, "train")
    content = trained.details["tokenizer"]
    tokenizer = load_tokenizer(tokenizer_of(config, content, f"{folder} was trained with"))
    export = config.export
    saved = {key: trained.details[key] for key in SETTINGS} | {
        "head": export.head,
        "weights": export.weights,
        "type_vectors": export.type_vectors,
        "warm_up": export.warm_up,
    }
    weights = _weights(config, folder, trained.details, tokenizer)
    names = save_model(place.folder, weights, saved, tokenizer)
    made = [FileRecord(name, *hash_file(place.file(name))) for name in names]
    card = model_card(trained, saved, _evaluation(config, trained), _corpus(config, trained))
    storage.write_bytes(place.file(CARD), card.encode())
    size = sum(file.bytes for file in made)
    console.line(f"{count(trained.details['parameters'])} parameters, {count(size)}B")
    details = {**saved, "parameters": trained.details["parameters"]}
    files = (*made, FileRecord(CARD, *hash_file(place.file(CARD))))
    return Made(files, details, stats={"bytes": size}, content=content_hash(made))


def _weights(
    config: Config, folder: str, details: dict[str, Any], tokenizer: Tokenizer
) -> dict[str, Tensor]:
    """The tensors to store, in float32.

    Raises:
        ModelError: the model has not what is to be stored, or needs what is to be left out.
    """
    weights = checkpoint_weights(folder)
    model = ModelConfig.model_validate(details["model"])
    if not config.export.head:
        if model.tied and isinstance(model.input, AdaptiveInputConfig):
            raise ModelError(
                "export.head: with model.tied and model.input.kind adaptive the input's vectors are the "
                "output layer's; export with export.head=true"
            )
        weights = {name: one for name, one in weights.items() if not name.startswith("head.")}
    if config.export.type_vectors:
        network = network_of_checkpoint(folder, details)
        if not isinstance(network.input, CharCNN):
            raise ModelError(
                f"export.type_vectors: model.input.kind is {model.input.kind}, which has a vector for "
                "each id anyway; leave export.type_vectors out"
            )
        weights[TYPE_VECTORS] = vectors_of_vocabulary(network.input, tokenizer)
    return weights


def _evaluation(config: Config, trained: Manifest) -> dict[str, Any]:
    """This run's figures of the very checkpoint, if there are any."""
    try:
        evaluated = read_manifest(STAGES["evaluate"].folder(config), "evaluate")
    except ManifestError:
        return {}
    return evaluated.details if evaluated.asked["checkpoint.content"] == trained.content else {}


def _corpus(config: Config, trained: Manifest) -> dict[str, Any]:
    """Details of the very corpus it was trained on, if it is at hand."""
    try:
        corpus = Corpus.open(stage_folder(config, "prepare", config.train.corpus)).manifest
    except ManifestError:
        return {}
    return corpus.details if corpus.content == trained.details["corpus"] else {}
