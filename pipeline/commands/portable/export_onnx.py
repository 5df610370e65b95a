"""`biloom export-onnx`: a model folder as ONNX files, with its tokenizer."""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from lightning_modules.models.model_folder import CONFIG
from lightning_modules.models.model_settings import parse_settings
from lightning_modules.portable.folder import NAMES, exported_files
from lightning_modules.portable.onnx_file import OPSET
from lightning_modules.vectors.pretrained import BiLM
from pipeline.console import Console, count
from pipeline.lifecycle.stage import require
from pipeline.lifecycle.task_folder import make_result, write_result
from pipeline.version import biloom_version
from preprocess.files import storage
from preprocess.files.manifest import read_manifest, record_of
from preprocess.files.verified import read_verified
from preprocess.tokenizers.subwords import MODEL

STAGE, VERSION = "export-onnx", 1
"""Name of the stage in the manifest, and its version, raised if the files change for an equal model."""
NEEDS = {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}
PACKAGES = ("torch", "onnx", "onnxscript")
"""Packages that the bytes of the files depend on."""


def export_onnx(model: str, folder: str, stream: bool) -> None:
    """Write a model as ONNX; the files are described in `lightning_modules.portable.folder`.

    Args:
        model: folder or URL of a finished model, or a repository of the Hugging Face hub.
        folder: folder or URL to write.
        stream: whether to write ``stream.onnx``, too.

    Raises:
        StageError: a package is not installed.
        ManifestError: there is no finished model.
        ModelError: the model is damaged.
        PortableError: the model cannot be exported, or ONNX Runtime computes other vectors.
        StageError: the folder has another result or other files, or its result is damaged.
        LockedError: another process is writing the folder.
    """
    require(STAGE, NEEDS)
    console = Console()
    loaded = BiLM.from_pretrained(model)
    asked = {"stage": STAGE, "version": VERSION, "model": loaded.content, "stream": stream}
    make = partial(_make, loaded, folder, stream, asked, console)
    make_result(folder, asked, NAMES, "an exported model", make, console)


def _make(loaded: BiLM, folder: str, stream: bool, asked: dict[str, Any], console: Console) -> None:
    """Write the folder; ``asked`` is what its manifest records, and the rest as in `export_onnx`."""
    manifest = read_manifest(loaded.folder, "export")
    _, settings = parse_settings(read_verified(loaded.folder, manifest, CONFIG))
    versions = {"biloom": biloom_version(), **{name: version(name) for name in PACKAGES}}
    made = exported_files(loaded, settings.cleaning, stream, versions)
    if made.no_tokenizer:
        console.warn(
            f"no tokenizer.json is written, because another program would compute other ids: "
            f"{made.no_tokenizer}; {MODEL} is written, which SentencePiece reads"
        )
    _write(folder, asked, made.files, {"opset": OPSET, "versions": versions})
    size = sum(map(len, made.files.values()))
    console.line(
        f"{folder}: {', '.join(made.files)}, {count(size)}B; differs from PyTorch by {made.difference:.1e} of a "
        "layer's largest value"
    )


def _write(
    folder: str, asked: dict[str, Any], files: Mapping[str, bytes], details: dict[str, Any]
) -> None:
    """Write the files, and the manifest last."""
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    made = [record_of(name, data) for name, data in files.items()]
    write_result(folder, asked, made, details, stage=STAGE, version=VERSION)
