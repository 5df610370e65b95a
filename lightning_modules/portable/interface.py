"""``interface.json``: what a program without biloom must know to use an exported model.

It describes the inputs and outputs of the ONNX files, how a text is cleaned and cut into tokens, and how words
are spelled. A reader must refuse a file whose ``format`` is above the one that it knows.
"""

import json
from collections.abc import Mapping
from typing import Any

from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from lightning_modules.portable.onnx_file import OPSET
from lightning_modules.portable.program import AXES, OUTPUTS, Form, input_names, is_spelled
from lightning_modules.vectors.pretrained import BiLM
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers import dictionary_speller, spellings
from preprocess.tokenizers.huggingface.conversion import WHITESPACE, Converted
from preprocess.tokenizers.subwords import MODEL, SentencePieceTokenizer

FORMAT = 1
"""Version of the format of ``interface.json``."""
FILES: dict[Form, str] = {"text": "model.onnx", "stream": "stream.onnx"}
TOKENIZER, SPELLINGS, INTERFACE = "tokenizer.json", "spellings.json", "interface.json"

_RANKS = {"ids": 2, "lengths": 1, "begins": 1, "characters": 2}
_DTYPES = {"begins": "bool", "state": "float32"}


def interface(
    model: BiLM,
    cleaning: CleaningConfig,
    forms: tuple[Form, ...],
    tokenizer: Converted,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of ``interface.json``.

    Args:
        model: the model.
        cleaning: how its texts are cleaned.
        forms: the forms that are exported.
        tokenizer: its tokenizer.
        versions: versions of the packages that made the files.
    """
    return {
        "format": FORMAT,
        "model": model.content,
        "versions": dict(versions),
        "opset": OPSET,
        "layers": model.depth,
        "directions": model.network.directions,
        "dim": model.dim,
        "files": {form: _described(model, form) for form in forms},
        "cleaning": cleaning.model_dump(mode="json", exclude={"invalid_bytes"}),
        "tokenizer": _tokenizer(model, tokenizer),
        "characters": _characters(model) if is_spelled(model) else None,
    }


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return JSON in UTF-8 with a line per entry."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _described(model: BiLM, form: Form) -> dict[str, Any]:
    """Return the name, the inputs and the outputs of an ONNX file."""
    recurrent, width = model.depth - 1, model.network.direction_width
    state = model.network.zero_state(1).shape[3]
    shapes: dict[str, list[int | str]] = {
        "state": [recurrent, "batch", state],
        "state_after": [recurrent, "batch", state],
        "layers": [model.depth, "batch", "time", model.dim if form == "text" else width],
    }
    for name, rank in _RANKS.items():
        shapes[name] = [AXES[name][axis] for axis in range(rank)]
    return {
        "file": FILES[form],
        "inputs": [
            {"name": name, "dtype": _DTYPES.get(name, "int64"), "shape": shapes[name]}
            for name in input_names(model, form)
        ],
        "outputs": [
            {"name": name, "dtype": "float32", "shape": shapes[name]} for name in OUTPUTS[form]
        ],
    }


def _tokenizer(model: BiLM, made: Converted) -> dict[str, Any]:
    tokenizer = model.tokenizer
    described: dict[str, Any] = {
        "kind": made.kind,
        "file": TOKENIZER,
        "ids": tokenizer.vocabulary,
        "moved_ids": {str(theirs): ours for theirs, ours in made.moved_ids.items()},
    }
    if made.kind == "word":
        described["whitespace"] = WHITESPACE
    elif is_spelled(model):
        described["spellings"] = SPELLINGS
    if isinstance(tokenizer, SentencePieceTokenizer):
        described["sentencepiece"] = MODEL
        if made.reason:
            theirs = tokenizer.model_ids().tolist()
            pairs = ((other, own) for own, other in enumerate(theirs) if other not in (own, -1))
            described |= {
                "kind": "sentencepiece",
                "file": MODEL,
                "moved_ids": {str(other): own for other, own in pairs},
            }
    return described


def _characters(model: BiLM) -> dict[str, Any]:
    """Return how a word is spelled as character ids."""
    network = model.network.input
    assert is_spelled(model)
    described = {"max_characters": network.max_characters}
    if not isinstance(network, WordCharCNN):
        return described | {
            "unit": "utf-8 byte",
            "begin": spellings.WORD_BEGIN,
            "end": spellings.WORD_END,
            "pad": spellings.PAD,
        }
    points = network.code_points.tolist()
    first = dictionary_speller.SPECIAL
    return described | {
        "unit": "code point",
        "begin": dictionary_speller.WORD_BEGIN,
        "end": dictionary_speller.WORD_END,
        "pad": dictionary_speller.PAD,
        "unknown": dictionary_speller.UNKNOWN_CHARACTER,
        "first_character": first,
        "code_points": points,
        "first_word": None if network.words is None else first + len(points),
        "text_begin": dictionary_speller.TEXT_BEGIN,
        "text_end": dictionary_speller.TEXT_END,
        "boundaries": dict(dictionary_speller.BOUNDARIES),
    }


def spellings_json(model: BiLM) -> bytes:
    """Return the spelling of each id of the tokenizer, a JSON list in the order of ids."""
    tokenizer = model.tokenizer
    return to_json_list([tokenizer.spelling(token) for token in range(tokenizer.vocabulary)])


def to_json_list(words: list[str]) -> bytes:
    """Return a JSON list in UTF-8."""
    return (json.dumps(words, ensure_ascii=False) + "\n").encode()
