"""``README.md`` of an exported model: what each file is, and how to use the ONNX files."""

from collections.abc import Mapping
from typing import Any

CLEANING = {
    "control_characters": {
        "remove": "Remove control characters (category Cc, except whitespace), lone surrogates and U+FEFF.",
        "keep": "Replace lone surrogates with U+FFFD.",
    },
    "unicode": {"NFC": "Normalise to NFC.", "NFKC": "Normalise to NFKC."},
    "whitespace": {
        "collapse": "Replace each run of whitespace with one space, and strip both ends.",
    },
}
"""What each value of a setting of cleaning does, in the order in which it is done."""

TOKENISERS = {
    "word": "Split the text at whitespace (the characters in `interface.json`). The ids of the words are in "
    "`tokenizer.json` (model WordLevel); a word that is not in it has the id 0.",
    "unigram": "Encode the text with `tokenizer.json` (model Unigram, with byte fallback).",
    "bpe": "Encode the text with `tokenizer.json` (model BPE, with byte fallback).",
    "char": "Encode the text with `tokenizer.json` (model BPE without merges: characters, with byte fallback).",
    "huggingface": "Encode the text with `tokenizer.json`, without special tokens, truncation and padding. "
    "Then replace the ids that `moved_ids` of `interface.json` lists.",
    "sentencepiece": "Encode the text with SentencePiece and `tokenizer.model`. Then replace the ids that "
    "`moved_ids` of `interface.json` lists.",
}

LAYERS = """\
The model computes a vector for each token of a text in each of {layers} layers of a {what} language model:
layer 0 is the input, layer {top} the top."""
STATIC = """\
The model is a table with a vector for each token of its vocabulary; the text around a token does not change
it. There is one layer, layer 0."""

STREAM = """
## `stream.onnx`: text that arrives in parts

The forward direction only, for texts that are read in parts. Set `begins` to true for the first part of a
text; its `state` is not read then. For each further part, pass the `state_after` of the part before as
`state`. The vectors are the forward halves of those of the whole text.

The backward direction reads a text from its end, so its vectors exist only when the text is complete: use
`model.onnx`.

{tables}
"""

README = """\
# A biloom model as ONNX

{about} A vector has {dim} numbers{halves}. The vectors are those of
`BiLM.embed(texts)` in biloom, within 0.0001 of a layer's largest value, whatever the batch. Opset {opset};
ONNX Runtime reads it since version 1.14. `interface.json` holds all of this for programs.

| file | content |
|---|---|
{files}

## From a text to tokens

Clean the text as the training text was:

{cleaning}

{tokenizer}
{characters}
## `model.onnx`: whole texts

{tables}

`ids` is padded at the end with any id; `lengths` holds the number of tokens of each text. The model itself
adds the tokens that training put before and after a text. Positions past a text's length are undefined.
{stream}
## One vector per word

A word of several tokens: {words}.

Made by {versions}.
"""

WORDS = {
    True: "take the forward half of the vector at its last token, and the backward half at its first token, "
    "because there each direction has read the whole word",
    False: "take the mean of the vectors of its tokens",
}
"""The vector of a word of several tokens, with and without recurrent layers."""

FILES = {
    "model.onnx": "all layers of whole texts",
    "stream.onnx": "the forward direction, for text that arrives in parts",
    "tokenizer.json": "the tokenizer, as Hugging Face's `tokenizers` reads it",
    "tokenizer.model": "the tokenizer, as SentencePiece reads it",
    "spellings.json": "the spelling of each token id",
    "interface.json": "inputs, outputs, cleaning, tokenizer and spelling, for programs",
    "manifest.json": "sizes and hashes of the files",
}
"""What each file holds."""


def readme(interface: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """Return ``README.md``.

    Args:
        interface: content of ``interface.json``.
        names: the other files in the folder.
    """
    files, both = interface["files"], interface["directions"] == 2
    layers, what = interface["layers"], "bidirectional" if both else "forward"
    stream = ""
    if "stream" in files:
        stream = STREAM.format(tables=_tables(files["stream"]))
    text = README.format(
        about=STATIC if layers == 1 else LAYERS.format(layers=layers, top=layers - 1, what=what),
        words=WORDS[layers > 1],
        dim=interface["dim"],
        halves=": the forward half, then the backward half" if both else "",
        opset=interface["opset"],
        files="\n".join(f"| `{name}` | {FILES[name]} |" for name in FILES if name in names),
        cleaning=_cleaning(interface["cleaning"]),
        tokenizer=TOKENISERS[interface["tokenizer"]["kind"]],
        characters=_characters(interface),
        tables=_tables(files["text"]),
        stream=stream,
        versions=", ".join(f"{name} {version}" for name, version in interface["versions"].items()),
    )
    return text.encode()


def _cleaning(settings: Mapping[str, str]) -> str:
    steps = [of.get(settings[name], "") for name, of in CLEANING.items()]
    lines = [f"{number}. {step}" for number, step in enumerate(filter(None, steps), 1)]
    return "\n".join(lines) or "It is not changed."


def _tables(file: Mapping[str, Any]) -> str:
    rows = ["| | name | type | shape |", "|---|---|---|---|"]
    for role in ("input", "output"):
        for value in file[f"{role}s"]:
            shape = ", ".join(map(str, value["shape"]))
            rows.append(f"| {role} | `{value['name']}` | {value['dtype']} | ({shape}) |")
    return "\n".join(rows)


def _characters(interface: Mapping[str, Any]) -> str:
    """Return how words become `characters`, or nothing if the model reads ids."""
    found = interface["characters"]
    if found is None:
        return ""
    spelling = "The spelling of a token is the word itself."
    if "spellings" in interface["tokenizer"]:
        spelling = "The spelling of each token id is in `spellings.json`; that of an unknown token is its text."
    most = found["max_characters"]
    lines = [
        f"\nThe model reads tokens by their spelling. {spelling} `characters` has a row per distinct token, "
        f"and `ids` holds the row of each token. A row is the id {found['begin']}, the characters, the id "
        f"{found['end']}, and the id {found['pad']} up to the longest row. At most {most - 2} characters are "
        "read; the rest of a word is cut off."
    ]
    if found["unit"] == "utf-8 byte":
        lines.append("A character is a byte of UTF-8; its id is its value.")
    else:
        lines.append(
            "A character is a Unicode code point; its id is its place in `code_points` of `interface.json`, "
            f"counted from {found['first_character']}, or {found['unknown']} if it is not there."
        )
        if found["first_word"] is not None:
            lines.append(
                f"The first id of a row is not {found['begin']}, but {found['first_word']} plus the id of "
                "the word, cut to the characters that are read, in `tokenizer.json`."
            )
    return " ".join(lines) + "\n"
