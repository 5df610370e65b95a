"""The command `export-onnx`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command


def _export_onnx(options: Namespace) -> int:
    from pipeline.commands.portable.export_onnx import export_onnx

    export_onnx(options.model, options.folder, options.stream)
    return 0


EXPORT_ONNX = Command(
    "convert a model folder to ONNX, with its tokenizer",
    _export_onnx,
    {
        "model": {
            "metavar": "MODEL",
            "help": "model folder, a path or URL, or a repository of the Hugging Face hub",
        },
        "folder": {"metavar": "FOLDER", "help": "folder or URL to write"},
        "--stream": {
            "action": "store_true",
            "help": "also write stream.onnx, which reads texts in parts, forward direction only",
        },
    },
    (
        "biloom export-onnx runs/quickstart/export onnx-model",
        "biloom export-onnx s3://bucket/run/export onnx-stream --stream",
    ),
    details="Writes model.onnx, which computes all layers of whole texts with any batch size and length, the "
    "tokenizer, interface.json and README.md, which say how to use them, and manifest.json. The vectors of a "
    "sample of texts are computed by ONNX Runtime with each ONNX file and compared with those of PyTorch.",
)
