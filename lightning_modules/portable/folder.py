"""The files of an exported model: ONNX, tokenizer, and what a program and a reader must know.

model.onnx       all layers of whole texts
stream.onnx      the forward direction, for text that arrives in parts; if requested
tokenizer.json   the tokenizer, as the library tokenizers reads it, unless it would give other ids
tokenizer.model  a SentencePiece model
spellings.json   the spelling of each id, for a model that reads subwords by their spelling
interface.json   see `lightning_modules.portable.interface`
README.md        the same for readers
"""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from lightning_modules.portable.comparison import check_onnx_file
from lightning_modules.portable.interface import (
    FILES,
    INTERFACE,
    SPELLINGS,
    TOKENIZER,
    interface,
    spellings_json,
    to_json,
)
from lightning_modules.portable.onnx_file import onnx_file
from lightning_modules.portable.program import Form, is_spelled
from lightning_modules.portable.readme import readme
from lightning_modules.vectors.pretrained import BiLM
from preprocess.files.manifest import NAME
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import CONTROLS
from preprocess.tokenizers.huggingface.conversion import Converted, converted
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.space_marks import SPACE_MARK
from preprocess.tokenizers.subwords import MODEL, SentencePieceTokenizer

CARD = "README.md"
NAMES = frozenset({*FILES.values(), TOKENIZER, MODEL, SPELLINGS, INTERFACE, CARD})
"""Names of all files that an exported model may have."""
SAMPLE = 60
"""Tokens of the vocabulary in the texts that are compared."""


class Exported(NamedTuple):
    """An exported model.

    Attributes:
        files: content of each file by name.
        difference: largest difference between ONNX Runtime and PyTorch, see `check_onnx_file`.
        no_tokenizer: why there is no ``tokenizer.json``; empty if there is one.
    """

    files: dict[str, bytes]
    difference: float
    no_tokenizer: str


def exported_files(
    model: BiLM, cleaning: CleaningConfig, stream: bool, versions: Mapping[str, str]
) -> Exported:
    """Return the files of an exported model; the vectors of each ONNX file were compared with PyTorch's.

    Args:
        model: the model, in float32 on the CPU.
        cleaning: how its texts are cleaned.
        stream: whether to make ``stream.onnx``, too.
        versions: versions of the packages, for the descriptions.

    Raises:
        PortableError: the model cannot be exported, or ONNX Runtime computes other vectors.
    """
    forms: tuple[Form, ...] = ("text", "stream") if stream else ("text",)
    files = {FILES[form]: onnx_file(model, form) for form in forms}
    sample = _sample(model.tokenizer)
    difference = max(check_onnx_file(files[FILES[form]], model, sample, form) for form in forms)
    tokenizer = converted(model.tokenizer)
    files |= _tokenizer_files(model, tokenizer)
    described = interface(model, cleaning, forms, tokenizer, versions)
    files[INTERFACE] = to_json(described)
    files[CARD] = readme(described, (*files, NAME))
    return Exported(files, difference, tokenizer.reason)


def _sample(tokenizer: Tokenizer) -> list[str]:
    """Return texts of different lengths that have tokens of the whole vocabulary, and unknown ones."""
    step = max(1, (tokenizer.vocabulary - len(CONTROLS)) // SAMPLE)
    tokens = range(len(CONTROLS), tokenizer.vocabulary, step)
    words = [tokenizer.spelling(token).replace(SPACE_MARK, " ") for token in islice(tokens, SAMPLE)]
    return [" ".join([*words, "Überaus", "unknown", "wörd"]), " ".join(words[:5]), "a", ""]


def _tokenizer_files(model: BiLM, made: Converted) -> dict[str, bytes]:
    files = {TOKENIZER: made.file} if made.file else {}
    if isinstance(model.tokenizer, SentencePieceTokenizer):
        files[MODEL] = model.tokenizer.model
    if is_spelled(model) and made.kind != "word":
        files[SPELLINGS] = spellings_json(model)
    return files
