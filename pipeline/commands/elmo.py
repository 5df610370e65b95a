"""`biloom import-elmo` and `biloom export-elmo`: other programs' models to model folders and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError, reading
from lightning_modules.models.elmo_options import read_options, write_options
from lightning_modules.models.elmo_vocabulary import read_vocabulary, write_vocabulary
from lightning_modules.models.elmo_weights import read_weights, write_weights
from lightning_modules.models.manylangs.dictionaries import (
    CHARACTERS,
    WORDS,
    read_characters,
    read_words,
)
from lightning_modules.models.manylangs.options import CONFIG as MANYLANGS_CONFIG
from lightning_modules.models.manylangs.options import PUBLISHED_NAME
from lightning_modules.models.manylangs.options import read_options as read_manylangs_options
from lightning_modules.models.manylangs.weights import EMBEDDER, ENCODER
from lightning_modules.models.manylangs.weights import read_weights as read_manylangs_weights
from lightning_modules.models.model_folder import CONFIG, WEIGHTS, load_network, save_model
from lightning_modules.nn.bilm import BiLMNetwork
from pipeline.console import Console, count
from pipeline.lifecycle.stage import require
from pipeline.lifecycle.task_folder import CARD, make_result, write_result
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.manifest import hash_file, read_manifest, records_of
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import CONTROLS
from preprocess.tokenizers.kind_file import KIND_FILE
from preprocess.tokenizers.load import load_tokenizer
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import INDEX, TEXT, WordTokenizer

NEEDS = {"h5py": "hdf5"}
WRITTEN = {WEIGHTS, CONFIG, KIND_FILE, TEXT, INDEX, CARD}
"""Names of the files of an imported model, which a killed import may leave."""
TEXT_OF_CARD = """\
# ELMo

Imported from {source}; the weights are unchanged. Words are read
by their characters, so any word has a vector. There is no output layer, so text cannot be scored.

```python
from biloom import BiLM

model = BiLM.from_pretrained("this folder")
for embedding in model.embed([["Words", "as", "a", "list", "."], "or separated by spaces ."]):
    print(embedding.vectors.shape)  # (layers, tokens, dim)
```
"""
COPY = "copy it from the folder of the model"
SOURCES = (
    "give options.json and weights.hdf5 of an ELMo archive, or the folder of an ELMoForManyLangs model, "
    "and then the folder to write"
)


def import_elmo(sources: Sequence[str], folder: str, vocabulary: str | None) -> None:
    """Write a model folder from a model of another program.

    Args:
        sources: options.json and weights.hdf5 of an ELMo archive, or the folder of an ELMoForManyLangs
            model.
        folder: the model folder to write.
        vocabulary: for an archive, a vocabulary file of bilm-tf, one word per line; None gives a model
            without a vocabulary. Both embed any word, from its characters.

    Raises:
        StageError: h5py is not installed, which an archive needs.
        ElmoError: the model or the vocabulary cannot be read, or the folder has another result or
            other files.
        ManifestError: the manifest in the folder is damaged.
    """
    console = Console()
    if len(sources) == 2:
        _import_archive(sources[0], sources[1], folder, vocabulary, console)
    elif len(sources) > 2:
        raise ElmoError(f"{len(sources)} sources are named; {SOURCES}")
    elif vocabulary:
        raise ElmoError(
            "--vocabulary is for an ELMo archive; an ELMoForManyLangs model has its words in word.dic"
        )
    elif not storage.exists(storage.join(sources[0], MANYLANGS_CONFIG)):
        raise ElmoError(f"{one_line(sources[0])} holds no {MANYLANGS_CONFIG}; {SOURCES}")
    else:
        _import_manylangs(sources[0], folder, console)


def _import_archive(
    options: str, weights: str, folder: str, vocabulary: str | None, console: Console
) -> None:
    require("import-elmo", NEEDS)
    config = read_options(options)
    asked = {
        "stage": "export",
        "options": _hash(options),
        "weights": _hash(weights),
        "vocabulary": _hash(vocabulary) if vocabulary else None,
    }

    def make() -> None:
        words, notes = read_vocabulary(vocabulary) if vocabulary else ([], ())
        for note in notes:
            console.warn(f"{vocabulary}: {note}")
        tensors = read_weights(weights, config)
        source = "an ELMo archive (options.json, weights.hdf5)"
        _write(folder, asked, config, tensors, words, source, console)

    make_result(folder, asked, WRITTEN, "a model", make, console)


def _import_manylangs(model: str, folder: str, console: Console) -> None:
    options = read_manylangs_options(model)
    names = [CHARACTERS, *([WORDS] if options.has_words else []), EMBEDDER, ENCODER]
    asked = {
        "stage": "export",
        "network": "published" if options.is_published else _hash(options.path),
        **{name: _hash(storage.join(model, name), COPY) for name in names},
    }

    def make() -> None:
        if options.is_published:
            console.line(
                f"{PUBLISHED_NAME} is missing from the folder: its published values are taken"
            )
        characters = read_characters(model)
        words = read_words(model) if options.has_words else None
        config = options.config(len(characters.rows))
        tensors = read_manylangs_weights(model, config, characters, words)
        source = "a model of ELMoForManyLangs"
        _write(folder, asked, config, tensors, words.words if words else (), source, console)

    make_result(folder, asked, WRITTEN, "a model", make, console)


def _write(
    folder: str,
    asked: dict[str, Any],
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    words: Sequence[str],
    source: str,
    console: Console,
) -> None:
    """Write a model folder.

    Args:
        folder: the folder.
        asked: what the manifest records of the input.
        config: the network.
        tensors: state dict of the network, without output layer.
        words: the vocabulary.
        source: what the model was, for its card.
        console: for the last line.
    """
    tokenizer = WordTokenizer(Vocabulary.of_words(words))
    network = BiLMNetwork(config, tokenizer.vocabulary, head=False)
    network.load_state_dict(tensors)
    cleaning = CleaningConfig(unicode="none", control_characters="keep", whitespace="keep")
    saved = {
        "model": config.model_dump(mode="json"),
        "vocabulary": tokenizer.vocabulary,
        "cutoffs": [],
        "boundary": "bos_eos",
        "cleaning": cleaning.model_dump(mode="json"),
        "tokenizer": "",
        "head": False,
    }
    made = records_of(folder, save_model(folder, tensors, saved, tokenizer))
    parameters = sum(weight.numel() for weight in network.parameters())
    card = TEXT_OF_CARD.format(source=source).encode()
    write_result(folder, asked, made, {**saved, "parameters": parameters}, card)
    console.line(
        f"{folder}: {count(parameters)} parameters, {len(words):,} words in the vocabulary"
    )


def _hash(path: str, hint: str = "name a file that exists") -> str:
    with reading(path, hint):
        return hash_file(path)[1]


def export_elmo(model: str, folder: str) -> None:
    """Write an ELMo archive from a model folder.

    The archive has options.json, weights.hdf5 and, if the model has a vocabulary, vocab.txt.

    Args:
        model: folder or URL of a finished model.
        folder: folder or URL to write the archive to.

    Raises:
        StageError: h5py is not installed.
        ManifestError: there is no finished model.
        ElmoError: an ELMo archive cannot hold this model, or the folder has one already.
    """
    require("export-elmo", NEEDS)
    read_manifest(model, "export")
    if storage.exists(storage.join(folder, "weights.hdf5")):
        raise ElmoError(f"{folder} holds an archive already; name another folder")
    network, saved, _ = load_network(model)
    config, tensors = ModelConfig.model_validate(saved["model"]), network.state_dict()
    console = Console()
    files = {"options.json": write_options(config)}
    tokenizer = load_tokenizer(model)
    words = [tokenizer.spelling(token) for token in range(len(CONTROLS), tokenizer.vocabulary)]
    if words:
        files["vocab.txt"], left_out = write_vocabulary(words)
        if left_out:
            shown = ", ".join(f"'{one_line(word)}'" for word in left_out[:3])
            console.warn(
                f"vocab.txt: {len(left_out):,} words are left out, because readers take them for "
                f"control tokens or for the end of a line: {shown}"
            )
    for name, data in files.items():
        path = storage.join(folder, name)
        # A killed export leaves equal files.
        if storage.exists(path) and storage.read_bytes(path) != data:
            raise ElmoError(f"{folder} holds another {name}; name another folder")
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    storage.write_bytes(storage.join(folder, "weights.hdf5"), write_weights(tensors, config))
    if saved["boundary"] != "bos_eos":
        console.warn(
            "trained with boundary eos: readers of ELMo archives begin a text with a token that this "
            "model does not know, so vectors near the edges of a text differ"
        )
    console.line(f"{folder}: options.json, weights.hdf5" + (", vocab.txt" if words else ""))
