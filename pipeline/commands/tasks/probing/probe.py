"""`biloom probe`: what the layers of a model encode, by linear probes and by senses of words."""

import json
import random
import time
from collections.abc import Sequence
from typing import Any

from lightning_modules.tasks.intervals import Interval
from lightning_modules.tasks.probing.linear_probe import ProbeError
from lightning_modules.tasks.probing.senses import SenseScores, same_sense, word_senses
from lightning_modules.tasks.probing.tag_probe import TagProbe, probe_tags, steps_of
from lightning_modules.vectors.pretrained import BiLM
from pipeline.config.probing import ProbeConfig
from pipeline.console import Console
from pipeline.training.device import resolve_device
from preprocess.reading.labelled.description import describe
from preprocess.reading.labelled.examples import Reading, TaggedSentence
from preprocess.reading.labelled.tagged import read_tagged_sentences

FEWEST = 20
"""Dev sentences below which the intervals of a bootstrap over sentences are too narrow."""


def probe(file: str, model: str, settings: ProbeConfig, as_json: bool) -> None:
    """Print the scores of each layer of a model on a task.

    Args:
        file: file of tagged sentences, of word senses, or of pairs, as ``settings.task`` says.
        model: folder or URL of a model.
        settings: the settings of the probe.
        as_json: print one JSON object instead of a table.

    Raises:
        UserError: the file or the model cannot be read, or cannot be used for the task.
    """
    console = Console()
    case = str.lower if settings.lower else str
    if settings.task != "tags":
        found = _model(model)
        if settings.task == "senses":
            scores = word_senses(found, file, case)
        else:
            scores = same_sense(found, file, settings.gold, case)
        _show_senses(console, scores, as_json)
        return
    train, dev, told = _sentences(file, settings)
    if not as_json:
        for line in told:
            console.line(line)
    found = _model(model)
    began = time.process_time()
    steps = steps_of(found, settings.control)
    if as_json:
        probed = probe_tags(found, train, dev, settings.seed, settings.control, case)
        print(json.dumps({**_figures(probed), "told": told}))
        return
    with console.bar("probe", steps) as bar:
        probed = probe_tags(found, train, dev, settings.seed, settings.control, case, bar.update)
    _show_tags(console, probed, time.process_time() - began)


def _model(path: str) -> BiLM:
    return BiLM.from_pretrained(path).to(resolve_device("auto"))


def _sentences(
    file: str, settings: ProbeConfig
) -> tuple[Sequence[TaggedSentence], Sequence[TaggedSentence], list[str]]:
    """Return the sentences to learn from and to test on, and what the user must know about them."""
    options = settings.reading
    reading = read_tagged_sentences(file, options)
    told = list(describe(reading))
    if settings.dev is not None:
        dev = read_tagged_sentences(settings.dev, options)
        told += [*describe(dev), *_few(dev.examples)]
        return _limited(reading.examples, settings, told), dev.examples, told
    train, held_out = _split(reading, settings)
    share = f"{settings.dev_share:.3g}"
    told.append(
        f"tested on {len(held_out):,} of {len(reading.examples):,} sentences, drawn by the seed "
        f"(dev_share={share}); dev=FILE names a file instead"
    )
    told += _few(held_out)
    return _limited(train, settings, told), held_out, told


def _few(dev: Sequence[TaggedSentence]) -> list[str]:
    """Return a warning if there are too few sentences for the bootstrap."""
    if len(dev) >= FEWEST:
        return []
    return [
        f"only {len(dev)} sentences are tested on, so the intervals are too narrow; name a larger dev "
        "file, or raise dev_share"
    ]


def _limited(
    sentences: Sequence[TaggedSentence], settings: ProbeConfig, told: list[str]
) -> Sequence[TaggedSentence]:
    """Return sentences of up to ``max_tokens`` tokens, drawn by the seed, in the order of the file."""
    order = list(range(len(sentences)))
    random.Random(settings.seed).shuffle(order)
    left, chosen = settings.max_tokens, []
    for number in order:
        left -= len(sentences[number].tokens)
        if left < 0:
            break
        chosen.append(number)
    if left >= 0:
        return sentences
    told.append(
        f"learned from {len(chosen):,} of {len(sentences):,} training sentences, drawn by the seed "
        f"(max_tokens={settings.max_tokens})"
    )
    return [sentences[number] for number in sorted(chosen)]


def _split(
    reading: Reading[TaggedSentence], settings: ProbeConfig
) -> tuple[list[TaggedSentence], list[TaggedSentence]]:
    """Divide the sentences by the seed; equal sentences fall on the same side."""
    different = sorted({one.tokens for one in reading.examples})
    random.Random(settings.seed).shuffle(different)
    number = max(1, round(settings.dev_share * len(different)))
    if number >= len(different):
        raise ProbeError(
            f"{reading.path}: {len(different)} different sentences cannot be divided into training and dev "
            "sentences; use a larger file, or name a dev file with dev=..."
        )
    held_out = set(different[:number])
    train: list[TaggedSentence] = []
    dev: list[TaggedSentence] = []
    for one in reading.examples:
        (dev if one.tokens in held_out else train).append(one)
    return train, dev


def _show_tags(console: Console, found: TagProbe, seconds: float) -> None:
    console.line(
        f"{found.tags:,} tags; learned from {found.train_tokens:,} tokens, tested on "
        f"{found.dev_tokens:,}, of which {found.unseen_words:.1%} are words without a training token"
    )
    if found.unseen_tags:
        console.warn(
            f"{found.unseen_tags:,} dev tokens have a tag without a training token, which no probe "
            "can predict"
        )
    if found.repeated:
        console.warn(
            f"{found.repeated:,} dev sentences are also training sentences, so the accuracy is too high"
        )
    rows = [
        ["most frequent tag", _percent(found.majority), "", ""],
        ["most frequent tag of the word", _percent(found.word_tag), "", ""],
        *(
            [
                f"layer {one.layer}" + " (no context)" * (not one.layer),
                _percent(one.accuracy),
                _percent(one.control),
                _percent(one.selectivity),
            ]
            for one in found.layers
        ),
    ]
    header = ["", "accuracy (95 % interval)", "control task", "selectivity"]
    console.table("accuracy on the dev tokens, in percent", header, rows)
    if slow := [str(one.layer) for one in found.layers if not one.converged]:
        console.warn(
            f"the probe of layer {', '.join(slow)} did not converge, so its accuracy may be too low"
        )
    console.line(f"{seconds:,.0f} CPU seconds")


def _show_senses(console: Console, found: SenseScores, as_json: bool) -> None:
    if as_json:
        scores = {kind: _interval(score) for kind, score in found.scores.items()}
        print(json.dumps({"examples": found.examples, "scores": scores}))
        return
    rows = [[kind, _percent(score)] for kind, score in found.scores.items()]
    title = f"accuracy on {found.examples:,} examples, in percent"
    console.table(title, ["", "accuracy (95 % interval)"], rows)


def _percent(score: Interval | None) -> str:
    if score is None:
        return ""
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _interval(score: Interval | None) -> list[float] | None:
    return None if score is None else [round(value, 6) for value in score]


def _figures(found: TagProbe) -> dict[str, Any]:
    """Return the scores as JSON types; an accuracy is [value, low, high]."""
    return {
        "tags": found.tags,
        "train_tokens": found.train_tokens,
        "dev_tokens": found.dev_tokens,
        "unseen_words": round(found.unseen_words, 6),
        "unseen_tags": found.unseen_tags,
        "repeated_sentences": found.repeated,
        "majority": _interval(found.majority),
        "word_tag": _interval(found.word_tag),
        "layers": [
            {
                "layer": one.layer,
                "accuracy": _interval(one.accuracy),
                "control": _interval(one.control),
                "selectivity": _interval(one.selectivity),
                "converged": one.converged,
            }
            for one in found.layers
        ],
    }
