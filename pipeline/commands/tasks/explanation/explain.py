"""`biloom explain`: why a task predicts what it does, or what surprises a language model."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rich.console import Console as RichConsole

from lightning_modules.tasks.explanation.config import ExplainConfig
from lightning_modules.tasks.explanation.explained import Explained, ExplainError
from pipeline.commands.tasks.explanation.text import show
from pipeline.config.sections import load_section
from pipeline.console import Console
from pipeline.reports.explanation_page import PageTexts, explanation_page
from pipeline.training.device import resolve_device
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.files.write_checks import check_no_folder
from preprocess.reading.labelled.examples import InputText
from preprocess.reading.labelled.inputs import read_texts
from preprocess.reading.labelled.options import LabelledTextOptions

WINDOW, WINDOW_CHARACTERS = 64, 50_000
"""Texts, and their characters, that a language model reads at once."""

ATTRIBUTION = (
    "Orange words speak for the label, blue words against it; the strongest colour is the largest "
    "attribution of the text."
)
SURPRISE = (
    "The stronger the colour, the more surprising the word (-log p), or the more the loss of the text "
    "depends on its vector (saliency). The strongest colour is the largest value of the text."
)


Tell = Callable[[str], None]


class _Explainer(NamedTuple):
    """What is explained.

    Attributes:
        explain: returns the explanations of a file, or of the texts themselves.
        about: what the colours of the page mean.
        kept: which of several trainings the folder has; empty if there was one.
    """

    explain: Callable[[str, Sequence[str], Tell], Iterator[Explained]]
    about: str
    kept: str = ""


def explain(
    path: str,
    file: str,
    texts: Sequence[str],
    model: str | None,
    page: str | None,
    overrides: Sequence[str],
) -> None:
    """Explain a task or a language model on texts.

    Args:
        path: folder or URL of a task or of a language model.
        file: the texts; ``-`` reads standard input, or nothing if ``texts`` are given.
        texts: the texts themselves.
        model: folder of the task's language model; None means the one of the training.
        page: HTML file to write; None writes none.
        overrides: ``key=value`` settings of `ExplainConfig`.

    Raises:
        UserError: a folder, a file or a setting is wrong.
    """
    config = load_section(ExplainConfig, overrides)
    if texts and file != "-":
        raise ExplainError(f"{file}: --text is given, too; name a file, or texts with --text")
    if page is not None:
        check_no_folder(page)
    notes = Console(RichConsole(stderr=True, highlight=False, soft_wrap=True))
    explainer = _opened(path, model, config)
    if explainer.kept:
        notes.line(explainer.kept)
    console, of_page, not_explained, total = Console(), PageTexts(), 0, 0
    for one in explainer.explain(file, texts, notes.line):
        total += 1
        not_explained += not one.spans
        if page is not None:
            of_page.add(one)
        if config.output == "jsonl":
            print(
                json.dumps(one.record(), ensure_ascii=False)
                .encode("utf-8", "backslashreplace")
                .decode()
            )
        else:
            show(console, one)
        if file == "-":
            sys.stdout.flush()
    if page is not None:
        facts = [("explained", path), ("texts", f"{total:,}")]
        facts += [("seed", explainer.kept)] if explainer.kept else []
        html = explanation_page("Explanations", facts, [explainer.about], of_page)
        storage.write_bytes(page, html.encode("utf-8", "replace"))
        notes.line(f"{page}: {len(of_page.shown):,} of {total:,} texts")
    if not_explained:
        notes.warn(f"{not_explained:,} of {total:,} texts are not explained; their titles say why")


def _opened(path: str, model: str | None, config: ExplainConfig) -> _Explainer:
    stage = read_manifest(path).stage
    if stage == "export":
        if model is not None:
            raise ExplainError(f"{path} is a language model itself; leave out --model")
        return _language_model(path, config)
    if stage == "classify train":
        return _classifier(path, model, config)
    if stage == "tag train":
        return _tagger(path, model, config)
    raise ExplainError(
        f"{path} holds a finished '{stage}'; name a model folder (`biloom export`), a classifier (`biloom "
        "classify train`) or a tagger (`biloom tag train`)"
    )


def _language_model(path: str, config: ExplainConfig) -> _Explainer:
    from lightning_modules.tasks.explanation.language_model import explain_surprise
    from lightning_modules.vectors.pretrained import BiLM

    bilm = BiLM.from_pretrained(path).to(resolve_device(config.device))

    def explained(file: str, texts: Sequence[str], tell: Tell) -> Iterator[Explained]:
        for window in _windows(_read(file, texts, config.reading, tell)):
            read = [one for one in window if not one.problem]
            found = iter(
                explain_surprise(
                    bilm,
                    [one.text for one in read],
                    [one.place for one in read],
                    config.by,
                    config.scale,
                )
            )
            for one in window:
                yield (
                    Explained(one.place, f"not explained: {one.problem}")
                    if one.problem
                    else next(found)
                )

    return _Explainer(explained, SURPRISE)


def _classifier(path: str, model: str | None, config: ExplainConfig) -> _Explainer:
    from lightning_modules.tasks.classification.stored import load_classifier, read_classifier
    from lightning_modules.tasks.explanation.classified import ClassifierExplainer

    task = read_classifier(path)
    explainer = ClassifierExplainer(
        load_classifier(task, model, resolve_device(config.device)),
        config.method,
        config.for_label,
        config.by,
        config.most_tokens,
    )
    trained = task.config.settings

    def explained(file: str, texts: Sequence[str], tell: Tell) -> Iterator[Explained]:
        for one in _read(file, texts, config.reading_like(trained), tell):
            yield explainer.explain(one.text, one.pair, one.place, one.problem)

    return _Explainer(explained, ATTRIBUTION, trained.kept_training)


def _tagger(path: str, model: str | None, config: ExplainConfig) -> _Explainer:
    from lightning_modules.tasks.explanation.tagged import TaggerExplainer
    from lightning_modules.tasks.tagging.joining import TextCutter
    from lightning_modules.tasks.tagging.saved import from_task, language_model, read_tagger
    from preprocess.reading.labelled.examples import TaggedSentence
    from preprocess.reading.labelled.inputs import read_untagged
    from preprocess.reading.labelled.tokens.cutting import choose_cut, cut_text

    task = read_tagger(path)
    tagger, device = from_task(task), resolve_device(config.device)
    tagger.tagger.network.to(device)
    bilm = language_model(task, tagger, model).to(device)
    explainer = TaggerExplainer(tagger, bilm, config.method, config.for_label, config.most_tokens)
    options = tagger.read.model_copy(update={"format": "auto"})
    cutter = TextCutter(tagger.segmented, tagger.segmenter)

    def explained(file: str, texts: Sequence[str], tell: Tell) -> Iterator[Explained]:
        if not texts:
            yield from map(explainer.explain, map(cutter, read_untagged(file, options, tell)))
        for number, text in enumerate(texts, 1):
            offsets = cut_text(
                text, options.split if options.split != "auto" else choose_cut([text])
            )
            tokens = tuple(text[start:end] for start, end in offsets)
            place = f"text {number}"
            sentence = TaggedSentence(tokens, (), place, text, tuple(offsets), is_cut=True)
            yield explainer.explain(cutter(sentence))

    return _Explainer(explained, ATTRIBUTION, task.config.settings.kept_training)


def _read(
    file: str, texts: Sequence[str], options: LabelledTextOptions, tell: Tell
) -> Iterator[InputText]:
    """Yield the texts themselves, or those of a file."""
    if not texts:
        yield from read_texts(file, options, tell)
    for number, text in enumerate(texts, 1):
        yield InputText(text, None, f"text {number}", "" if text.strip() else "empty text")


def _windows(texts: Iterable[InputText]) -> Iterator[list[InputText]]:
    """Yield the texts of a stream in groups of bounded size."""
    stream = iter(texts)
    while window := list(islice(stream, 1)):
        characters = len(window[0].text)
        while (
            characters < WINDOW_CHARACTERS
            and len(window) < WINDOW
            and (more := list(islice(stream, 1)))
        ):
            window += more
            characters += len(more[0].text)
        yield window
