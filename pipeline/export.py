"""Stage: checkpoint -> model folder."""

from typing import Any

from lightning_modules.model_folder import checkpoint_weights, save_model
from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.model_card import model_card
from pipeline.stage import Made, Place
from pipeline.stages import STAGES, stage_folder, tokenizer_of
from preprocess import storage
from preprocess.manifest import (
    FileRecord,
    Manifest,
    ManifestError,
    content_hash,
    hash_file,
    read_manifest,
)
from preprocess.token_shard import Corpus
from preprocess.tokenizer import load_tokenizer

SETTINGS = ("model", "vocabulary", "cutoffs", "boundary", "cleaning", "tokenizer")
CARD = "README.md"


def make(config: Config, place: Place, console: Console) -> Made:
    folder = stage_folder(config, "train", config.export.checkpoint)
    trained = read_manifest(folder, "train")
    content = trained.details["tokenizer"]
    tokenizer = load_tokenizer(tokenizer_of(config, content, f"{folder} was trained with"))
    saved = {key: trained.details[key] for key in SETTINGS}
    names = save_model(place.folder, checkpoint_weights(folder), saved, tokenizer)
    made = [FileRecord(name, *hash_file(place.file(name))) for name in names]
    card = model_card(trained, _evaluation(config, trained), _corpus(config, trained))
    storage.write_bytes(place.file(CARD), card.encode())
    size = sum(file.bytes for file in made)
    console.line(f"{count(trained.details['parameters'])} parameters, {count(size)}B")
    details = {**saved, "parameters": trained.details["parameters"]}
    files = (*made, FileRecord(CARD, *hash_file(place.file(CARD))))
    return Made(files, details, stats={"bytes": size}, content=content_hash(made))


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
