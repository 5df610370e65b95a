"""Tokenizers of Hugging Face: a ``tokenizer.json``, used as it is.

The library ``tokenizers`` does all steps that the file describes: normaliser, pre-tokenizer, model and added
tokens. Three settings of the file have no effect here. Truncation and padding are off, because a document
is encoded whole. The post-processor adds no special tokens, because biloom has its own ids at the bounds
of a text.

Ids: `UNKNOWN`, `BOS` and `EOS` are 0, 1 and 2 here. The unknown token of the file becomes `UNKNOWN`. The
other tokens keep their ids, except for those that have the ids 0, 1 or 2 in the file: these follow after the
highest id, in their order. No token of the file becomes `BOS` or `EOS`, because ``tokenizers`` also finds
special tokens, such as <s>, in a text.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.files.storage import join, write_bytes
from preprocess.tokenizers.base import CONTROLS, UNKNOWN, Ids, Token, TokenizerError
from preprocess.tokenizers.huggingface.spellings import FileSpellings
from preprocess.tokenizers.kind_file import save_kind
from preprocess.tokenizers.space_marks import SPACE_MARK
from preprocess.tokenizers.subwords import is_sentencepiece, read_model

FILE = "huggingface.json"
"""Name of the file in a tokenizer folder, where ``tokenizer.json`` is biloom's own."""

MOST_IDS = 1 << 24
"""Highest id + 1. Arrays and output layers have a row for each id up to the highest one."""

_ABSENT = -1
# Characters that a vocabulary may lack: a rare letter, a rare Chinese character, a cuneiform sign.
_RARE = "ꙮ 𪚥 𒀀"


class MissingPackage(TokenizerError):  # noqa: N818
    """The library ``tokenizers`` is not installed."""


class HuggingFaceTokenizer:
    """A `Tokenizer` around a ``tokenizer.json`` of the library ``tokenizers``.

    Args:
        file: the bytes of the file.

    Attributes:
        drops_characters: characters that the vocabulary lacks have no token, not even the unknown one.

    Raises:
        MissingPackage: ``tokenizers`` is not installed.
        TokenizerError: ``tokenizers`` cannot read the file, or cannot encode text with it; or the
            vocabulary is empty or has ids from `MOST_IDS` on.
    """

    kind = "huggingface"

    def __init__(self, file: bytes) -> None:
        self._file = file
        self._settings = _settings(file)
        self._tokenizer = _read(file)
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise TokenizerError("it has no vocabulary")
        if (highest := max(ids)) >= MOST_IDS:
            raise TokenizerError(
                f"its highest id is {highest:,}, and biloom supports ids below {MOST_IDS:,}"
            )
        # (vocabulary,) the file's id of each of our ids; -1 for a control id that the file lacks.
        self._of_file = _in_our_order(set(ids), self._unknown())
        self.vocabulary = len(self._of_file)
        # (highest id of the file + 1,) our id for each of the file's.
        self._ours = np.zeros(highest + 1, np.int32)
        self._ours[self._of_file[len(CONTROLS) :]] = np.arange(len(CONTROLS), self.vocabulary)
        if (unknown := self._of_file[UNKNOWN]) >= 0:
            self._ours[unknown] = UNKNOWN
        self._spellings = FileSpellings(self._tokenizer, self._settings)
        try:
            self.drops_characters = not self._encoded(_RARE.split()[-1]).ids
            self._encoded(_RARE)
        except TokenizerError as error:
            raise TokenizerError(
                f"it cannot encode characters that its vocabulary lacks ({error.__cause__})"
            ) from error

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        # One text per call uses one core, whatever TOKENIZERS_PARALLELISM says, and is as fast as many.
        # The fast form does not compute offsets.
        fast = self._tokenizer.encode_batch_fast
        with _failure():
            rows = [fast([text], add_special_tokens=False)[0].ids for text in texts]
        ends = np.cumsum([len(row) for row in rows]).tolist()
        ids = self._ours[np.fromiter(chain.from_iterable(rows), np.int64, ends[-1] if ends else 0)]
        return [ids[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def decode(self, ids: Ids) -> str:
        theirs = self.file_ids(ids)
        kept = theirs[theirs != _ABSENT].tolist()
        with _failure():
            return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    @property
    def file(self) -> bytes:
        """The bytes of the file."""
        return self._file

    def file_ids(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Return the file's ids of some ids, int64, of the same shape; -1 for an id that it lacks."""
        return self._of_file[ids]

    def tokens(self, text: str) -> list[Token]:
        found = self._encoded(text)
        tokens = []
        for token, (start, end) in zip(self._ours[found.ids].tolist(), found.offsets, strict=True):
            spelling = self.spelling(token)
            if token == UNKNOWN:
                spelling = self._spellings.unknown(text[start:end])
            tokens.append(Token(token, spelling, start, end))
        return tokens

    def spelling(self, token: int) -> str:
        if token < len(CONTROLS):
            return CONTROLS[token]
        return self._spellings.of(int(self._of_file[token]))

    def byte_tokens(self, ids: Ids) -> int:
        return int(np.count_nonzero(self._bytes[ids]))

    def longest(self, number: int) -> list[str]:
        spellings = self._spellings
        words = (n for n in self._of_file[len(CONTROLS) :].tolist() if spellings.is_text(n))
        found = {spellings.of(n).replace(SPACE_MARK, " ").strip(" ") for n in words}
        return sorted(found, key=lambda piece: (-len(piece), piece))[:number]

    @cached_property
    def _bytes(self) -> npt.NDArray[np.bool_]:
        """Which ids stand for one byte of a character, (vocabulary,)."""
        of_file = self._of_file.tolist()
        return np.array([n >= 0 and self._spellings.is_byte(n) for n in of_file])

    def restores(self, text: str) -> bool:
        """Return True if decoding the ids of ``text`` restores it, except for a space at its start.

        Many decoders keep the space that the tokenizer puts before a text.
        """
        return self.decode(self.encode([text])[0]).removeprefix(" ") == text.removeprefix(" ")

    def save(self, folder: str) -> tuple[str, ...]:
        write_bytes(join(folder, FILE), self._file)
        return save_kind(folder, self.kind, {"file": FILE}, {})

    def __reduce__(self) -> tuple[Any, ...]:
        # For copies of a model and for worker processes; the cache of spellings cannot be pickled.
        return HuggingFaceTokenizer, (self._file,)

    def _encoded(self, text: str) -> Any:
        with _failure():
            return self._tokenizer.encode(text, add_special_tokens=False)

    def _unknown(self) -> int | None:
        """Return the file's id of the unknown token, None if it has none."""
        model = self._settings["model"]
        token, number = model.get("unk_token"), model.get("unk_id")
        if isinstance(token, str):
            number = self._tokenizer.token_to_id(token)
        return None if number is None else int(number)


def _in_our_order(ids: set[int], unknown: int | None) -> npt.NDArray[np.int64]:
    """Return the file's ids in our order, (vocabulary,); -1 for a control id that it lacks.

    Args:
        ids: all ids of the file.
        unknown: the id of its unknown token.
    """
    controls = [_ABSENT if unknown is None else unknown, _ABSENT, _ABSENT]
    moved = [n for n in range(len(CONTROLS)) if n in ids and n != unknown]
    return np.array([*controls, *range(len(CONTROLS), max(ids) + 1), *moved])


def _settings(file: bytes) -> dict[str, Any]:
    """Return the content of a ``tokenizer.json``.

    Raises:
        TokenizerError: it is something else; the message says what, if it is known.
    """
    try:
        found = json.loads(file)
    except (ValueError, RecursionError) as error:
        if is_sentencepiece(file):
            raise TokenizerError(
                "it is a SentencePiece model; set tokenizer.kind=sentencepiece"
            ) from error
        reason = (
            f"it is not JSON: {error}" if isinstance(error, ValueError) else "nested too deeply"
        )
        raise TokenizerError(reason if file.strip() else "it is empty") from error
    if isinstance(found, dict) and "model" not in found and "kind" in found:
        raise TokenizerError(
            "it describes a tokenizer of biloom; name the folder instead: prepare.tokenizer"
        )
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise TokenizerError("it has no 'model'; name the tokenizer.json, not a file beside it")
    return found


def _read(file: bytes) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackage(
            "a tokenizer.json of Hugging Face needs the package tokenizers: pip install 'biloom[hf]'"
        ) from error
    with _failure():
        tokenizer = Tokenizer.from_buffer(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@contextmanager
def _failure() -> Iterator[None]:
    """Convert errors of ``tokenizers``, which raises bare exceptions, and panics of its Rust code."""
    try:
        yield
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        if not is_panic and not isinstance(error, Exception):
            raise
        reason = str(error).removeprefix("Cannot instantiate Tokenizer from buffer: ")
        is_newer = "version" in reason or "not match any variant" in reason
        advice = "; a newer version of tokenizers may read it" if is_newer else ""
        raise TokenizerError(f"tokenizers: {reason}{advice}") from error


def read_huggingface(path: str) -> HuggingFaceTokenizer:
    """Load the ``tokenizer.json`` at ``path``, a path or URL.

    Raises:
        TokenizerError: the file cannot be read or used, see `HuggingFaceTokenizer`.
    """
    file = read_model(path)
    try:
        return HuggingFaceTokenizer(file)
    except MissingPackage:
        raise
    except TokenizerError as error:
        raise TokenizerError(f"tokenizer.file: {path}: cannot be used ({error})") from error
