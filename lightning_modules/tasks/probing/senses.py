"""How well the layers of a model separate the senses of words, compared with static vectors."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.intervals import Interval, bootstrap_intervals
from lightning_modules.tasks.probing.linear_probe import ProbeError
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.reading.labelled.tokens.cutting import choose_cut
from preprocess.vectors.search.marked_text import MarkedText

Floats = npt.NDArray[np.float64]
Case = Callable[[str], str]

KNOWN, TESTED, NEAREST = 100, 500, 5
"""Occurrences of a word with known senses, maximum number of others, and neighbours that vote."""


@dataclass(frozen=True)
class SenseScores:
    """Accuracy on a task about senses.

    Attributes:
        examples: number of predictions.
        scores: accuracy of the baseline, which comes first, and of each kind of vector.
    """

    examples: int
    scores: dict[str, Interval]


@dataclass(frozen=True)
class _Place:
    """A text with a word in it: words and the index of one, or a marked text without spaces."""

    text: tuple[str, ...] | MarkedText
    index: int = 0


def word_senses(model: BiLM, path: str, case: Case = str) -> SenseScores:
    """Predict the senses of words by their nearest neighbours.

    For each word, `KNOWN` random occurrences have known senses. The sense of up to `TESTED` others is
    predicted by a majority vote of the `NEAREST` known ones by cosine similarity. The accuracy is the
    mean over the words.

    Args:
        model: the model.
        path: file with the columns word, sense, index of the word from 0, and tokens separated by
            spaces, without a header.
        case: applied to each text, such as ``str.lower``.

    Raises:
        ProbeError: the file cannot be read or has other columns, or no word occurs often enough.
    """
    rows = _sense_rows(path)
    right: dict[str, list[npt.NDArray[np.bool_]]] = defaultdict(list)
    for word in sorted({row[0] for row in rows}):
        of_word = [row for row in rows if row[0] == word]
        order = np.random.default_rng(1).permutation(len(of_word))[: KNOWN + TESTED]
        of_word = [of_word[n] for n in order]
        labels = np.array([row[1] for row in of_word])
        known, tested = labels[:KNOWN], labels[KNOWN:]
        if not len(tested):
            continue
        right["the most frequent sense"].append(tested == _most_common(known))
        places = [_Place(tuple(case(row[3]).split()), row[2]) for row in of_word]
        for kind, found in _vectors(model, places).items():
            near = np.argsort(-(found[KNOWN:] @ found[:KNOWN].T), 1)[:, :NEAREST]
            votes = np.array([_most_common(known[one]) for one in near])
            right[kind].append(votes == tested)
    if not right:
        raise ProbeError(
            f"{path}: no word has more than {KNOWN} occurrences, of which the others are predicted; use a "
            "larger file"
        )
    sizes = np.array([len(one) for one in next(iter(right.values()))])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    joined = {kind: np.concatenate(some) for kind, some in right.items()}

    def statistic(drawn: npt.NDArray[np.int64]) -> dict[str, float]:
        of = groups[drawn]
        return {
            kind: float(
                np.mean([hits[drawn][of == n].mean() for n in range(len(sizes)) if (of == n).any()])
            )
            for kind, hits in joined.items()
        }

    return SenseScores(len(groups), bootstrap_intervals(statistic, len(groups)))


def same_sense(model: BiLM, path: str, gold: str | None = None, case: Case = str) -> SenseScores:
    """Predict whether a word has the same sense in two texts.

    It has the same sense if the cosine similarity of its two vectors is at least a threshold. The
    threshold is chosen on one half of the pairs and tested on the other, and vice versa.

    Args:
        model: the model.
        path: JSON file of the pairs, as in MCL-WiC: a list of objects with id, sentence1, sentence2,
            start1, end1, start2 and end2; the places are characters of the sentences.
        gold: JSON file of the answers, a list of objects with id and tag, T or F; None for the file
            whose name ends with .gold instead of .data.
        case: applied to each text, such as ``str.lower``.

    Raises:
        ProbeError: a file cannot be read or has other fields, or there are fewer than two pairs.
    """
    pairs, answers = _pairs(path, gold)
    sides = []
    spaced = choose_cut([str(one["sentence1"]) for one in pairs]) == "words"
    for side in ("1", "2"):
        places = [_place(one, side, case, spaced, path) for one in pairs]
        sides.append(_vectors(model, places))
    halves = np.arange(len(pairs)) % 2 == 0
    majority = answers.mean() >= 0.5
    right = {"always the same answer": answers == majority}
    for kind in sides[0]:
        cosine = (sides[0][kind] * sides[1][kind]).sum(1)
        hits = np.zeros(len(pairs), bool)
        for half in (halves, ~halves):
            thresholds = np.sort(cosine[half])
            best = max(thresholds, key=lambda t: ((cosine[half] >= t) == answers[half]).mean())
            hits[~half] = (cosine[~half] >= best) == answers[~half]
        right[kind] = hits
    return SenseScores(
        len(pairs),
        bootstrap_intervals(
            lambda drawn: {kind: float(hits[drawn].mean()) for kind, hits in right.items()},
            len(pairs),
        ),
    )


def _most_common(labels: npt.NDArray[Any]) -> Any:
    return Counter(labels.tolist()).most_common(1)[0][0]


def _vectors(model: BiLM, places: Sequence[_Place]) -> dict[str, Floats]:
    """Return unit vectors (places, dim) of the words, by kind of vector.

    "static" is the mean of the layer-0 vectors of the text, which do not depend on context.
    """
    words = np.empty((len(places), model.depth, model.dim))
    static = np.empty((len(places), model.dim))
    listed = [n for n, place in enumerate(places) if not isinstance(place.text, MarkedText)]
    marked = [n for n, place in enumerate(places) if isinstance(place.text, MarkedText)]
    found = model.iter_embed((_text(places[n]) for n in listed), unit="word", pooling="direction")
    for n, embedding in zip(listed, found, strict=True):
        layers = embedding.vectors.astype(np.float64)  # (layers, words, dim)
        words[n], static[n] = layers[:, places[n].index], layers[0].mean(0)
    half = model.dim // model.network.directions
    for n, embedding in zip(
        marked, model.iter_embed(_text(places[n]) for n in marked), strict=True
    ):
        layers = embedding.vectors.astype(np.float64)  # (layers, tokens, dim)
        text = places[n].text
        assert isinstance(text, MarkedText)
        word = text.find_in([token.spelling for token in embedding.tokens])
        words[n, :, :half] = layers[:, word.last, :half]
        words[n, :, half:] = layers[:, word.first, half:]
        static[n] = layers[0].mean(0)
    kinds = {
        f"layer {layer}" + (" (no context)" if not layer else ""): words[:, layer]
        for layer in range(model.depth)
    }
    kinds |= {"mean of layers": words.mean(1), "static": static}
    return {
        kind: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        for kind, rows in kinds.items()
    }


def _text(place: _Place) -> Any:
    return place.text.text if isinstance(place.text, MarkedText) else list(place.text)


def _sense_rows(path: str) -> list[tuple[str, str, int, str]]:
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        cells = line.split("\t")
        if not line.strip():
            continue
        index = cells[2] if len(cells) == 4 else ""
        if not index.isdecimal() or int(index) >= len(cells[3].split()):
            raise ProbeError(
                f"{path}: line {number} is not word, sense, index of the word from 0 and tokens, "
                "separated by tabs; write a file with these columns and without a header"
            )
        rows.append((cells[0], cells[1], int(index), cells[3]))
    if not rows:
        raise ProbeError(f"{path}: the file has no lines; name a file of word senses")
    return rows


def _pairs(path: str, gold: str | None) -> tuple[list[dict[str, Any]], npt.NDArray[np.bool_]]:
    """Return the pairs, and whether each has the same sense."""
    gold = gold or f"{path.removesuffix('.data')}.gold"
    pairs = _objects(path, "id", "sentence1", "sentence2", "start1", "start2", "end1", "end2")
    tags = {one["id"]: one["tag"] for one in _objects(gold, "id", "tag")}
    for one in pairs:
        if tags.get(one["id"]) not in ("T", "F"):
            raise ProbeError(
                f"{gold}: no tag T or F for the pair '{one_line(str(one['id']))[:40]}' of {path}; name the "
                "file of its answers with gold=..."
            )
    if len(pairs) < 2:
        raise ProbeError(f"{path}: {len(pairs)} pairs, and two are needed; use a larger file")
    return pairs, np.array([tags[one["id"]] == "T" for one in pairs])


def _objects(path: str, *fields: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise ProbeError(
            f"{path}: not JSON ({error}); name a file in the format of MCL-WiC"
        ) from error
    is_list = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    if not is_list or any(field not in one for one in found for field in fields):
        raise ProbeError(
            f"{path}: not a JSON list of objects with the fields {', '.join(fields)}; name a file in the "
            "format of MCL-WiC"
        )
    objects: list[dict[str, Any]] = found
    return objects


def _read(path: str) -> str:
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ProbeError(f"{path}: {error.strerror or error}; name a file that exists") from error
    except UnicodeDecodeError as error:
        raise ProbeError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error


def _place(pair: dict[str, Any], side: str, case: Case, spaced: bool, path: str) -> _Place:
    """Return the word of one side of a pair; ``spaced`` if spaces separate the words."""
    text = str(pair[f"sentence{side}"])
    start, end = (str(pair[f"{name}{side}"]) for name in ("start", "end"))
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end) <= len(text)):
        raise ProbeError(
            f"{path}: pair '{one_line(str(pair['id']))[:40]}' has no word at characters {one_line(start)[:20]} "
            f"to {one_line(end)[:20]} of sentence{side}; correct the places"
        )
    if not spaced:
        return _Place(_marked(text, int(start), int(end), case))
    found = list(re.finditer(r"\w+|[^\w\s]", text))
    index = next((n for n, word in enumerate(found) if word.end() > int(start)), None)
    if index is None:
        raise ProbeError(
            f"{path}: pair '{one_line(str(pair['id']))[:40]}' marks only spaces in sentence{side}; correct "
            "the places"
        )
    return _Place(tuple(case(word.group()) for word in found), index)


def _marked(text: str, start: int, end: int, case: Case) -> MarkedText:
    # Lower-casing may change the length of a text.
    before, word, after = case(text[:start]), case(text[start:end]), case(text[end:])
    return MarkedText(before + word + after, len(before), len(before + word))
