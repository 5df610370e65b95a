"""`biloom distill --to static`: a model folder without recurrent layers."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.static_model import static_settings, static_weights
from lightning_modules.distillation.static_table import (
    StaticTable,
    check_dim,
    reduced,
    static_table,
)
from lightning_modules.distillation.type_sums import TypeSums
from lightning_modules.models.model_folder import CONFIG, save_model
from lightning_modules.models.model_settings import ModelSettings, parse_settings
from lightning_modules.one_thread import one_thread
from lightning_modules.vectors.pretrained import BiLM
from pipeline.commands.distillation.sources import CacheSource, TextSource, UseSource
from pipeline.commands.distillation.static_card import static_card
from pipeline.console import Bar, Console, count
from pipeline.lifecycle.task_folder import CARD, make_result, write_result
from pipeline.progress import write_metrics
from pipeline.version import biloom_version
from preprocess.corpus.rejects import side_files
from preprocess.files.manifest import Manifest, read_manifest, records_of
from preprocess.files.verified import read_verified
from preprocess.tokenizers.base import CONTROLS, UNKNOWN
from preprocess.vectors.cache import VectorCache

VERSION = 2
"""Version of what `distill_static` computes, raised if its result changes for an equal request."""


@dataclass(frozen=True)
class StaticRequest:
    """What to make.

    Attributes:
        model: folder or URL of a model, or a repository of the Hugging Face hub.
        caches: folders or URLs of vector caches of the model.
        inputs: paths, folders, globs or URLs of text, in place of caches.
        layers: the layer, as in `TeacherLayer.parse`.
        dim: number of principal components; None keeps the vectors as they are.
        weights: type of the stored vectors.
    """

    model: str
    caches: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    layers: str = "top"
    dim: int | None = None
    weights: str = "float32"


def distill_static(request: StaticRequest, out: str) -> None:
    """Write a static model. A killed command that is run again writes the same bytes.

    Args:
        request: what to make.
        out: folder or URL to write.

    Raises:
        DistillationError: the model, a cache or a setting cannot be used, or there are no tokens.
        StageError: the folder has another result or other files, or its result is damaged.
        LockedError: another process is writing the folder.
        ManifestError: a folder holds no finished model or cache.
        UserError: the model, a cache or the text cannot be read.
    """
    if bool(request.caches) == bool(request.inputs):
        raise DistillationError(
            f"{'both' if request.caches else 'neither'} of --cache and --input given; name vector caches of "
            "the model with --cache, or text with --input"
        )
    console = Console()
    console.stage("distill", out)
    write_metrics()
    model = BiLM.from_pretrained(request.model)
    if model.depth == 1:
        raise DistillationError(
            f"{request.model}: this model has no recurrent layers, so its vectors are static already; name "
            "the model that it was made from"
        )
    manifest = read_manifest(model.folder, "export")
    _, settings = parse_settings(read_verified(model.folder, manifest, CONFIG))
    layer = TeacherLayer.parse(request.layers, model.depth)
    if request.dim is not None:
        check_dim(request.dim, model.dim)
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        source: UseSource
        if request.caches:
            caches = [stack.enter_context(VectorCache.open(path)) for path in request.caches]
            source = CacheSource(caches, model, layer)
        else:
            source = TextSource.of(request.inputs, model, layer, settings.cleaning, out, console)
        asked = {
            "stage": "export",
            "static": VERSION,
            "model": model.content,
            "layer": layer.name,
            "dim": request.dim,
            "weights": request.weights,
            **source.asked,
        }
        names = {*(file.name for file in manifest.files), CARD, *side_files(out)}
        make = partial(_make, request, out, model, layer, source, settings, asked, console)
        make_result(out, asked, names, "a static model", make, console)


def _make(
    request: StaticRequest,
    out: str,
    model: BiLM,
    layer: TeacherLayer,
    source: UseSource,
    settings: ModelSettings,
    asked: dict[str, Any],
    console: Console,
) -> None:
    """Write the folder.

    Args:
        request: what to make.
        out: folder or URL to write.
        model: the model that ``request`` names.
        layer: the layer that it names.
        source: the texts that it names.
        settings: settings of the model.
        asked: what the manifest records of the request.
        console: where progress is shown.

    Raises:
        DistillationError: there are no tokens, or the texts changed while they were read.
    """
    sums = _sums(model, source, console)
    read = source.finish(console)
    table = _table(request, model, layer, sums, console)
    figures = _figures(table, layer, source.texts, request.dim) | read
    _show(console, figures)
    made = _write(out, asked, model, settings, table, figures)
    size = sum(file.bytes for file in made.files)
    console.line(
        f"{out}: {len(table.vectors):,} vectors of {table.vectors.shape[1]}, {count(size)}B"
    )


def _sums(model: BiLM, source: UseSource, console: Console) -> TypeSums:
    sums = TypeSums(model.tokenizer.vocabulary, model.dim)
    with console.bar("mean vectors", source.total) as bar:
        for uses in source.uses(_meter(bar, source.total)):
            sums.add(uses)
    sums.flush()
    return sums


def _table(
    request: StaticRequest, model: BiLM, layer: TeacherLayer, sums: TypeSums, console: Console
) -> StaticTable:
    absent = int((sums.counts[len(CONTROLS) :] == 0).sum())
    with console.bar("types without uses", absent) as bar:
        table = static_table(model, layer, sums, _meter(bar, absent))
    return table if request.dim is None else reduced(table, request.dim)


def _meter(bar: Bar, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done = min(done + number, total)
        bar.update(done)

    return advance


def _figures(
    table: StaticTable, layer: TeacherLayer, texts: int, dim: int | None
) -> dict[str, Any]:
    """Return what the manifest says about the vectors."""
    figures: dict[str, Any] = {
        "layer": layer.name,
        "texts": texts,
        "tokens": int(table.counts.sum()),
        "types": table.occurring + table.alone,
        "occurring": table.occurring,
        "alone": table.alone,
        "unknown": int(table.counts[UNKNOWN]),
    }
    return figures if dim is None else {**figures, "kept_variance": round(table.kept, 6)}


def _show(console: Console, figures: dict[str, Any]) -> None:
    console.line(
        f"types: {figures['occurring']:,} of {figures['types']:,} occur, {figures['alone']:,} from texts of "
        f"one token; {figures['unknown']:,} unknown of {figures['tokens']:,} tokens in "
        f"{figures['texts']:,} texts"
    )
    if "kept_variance" in figures:
        console.line(
            f"the principal components have {figures['kept_variance']:.1%} of the variance"
        )


def _write(
    out: str,
    asked: dict[str, Any],
    model: BiLM,
    settings: ModelSettings,
    table: StaticTable,
    figures: dict[str, Any],
) -> Manifest:
    """Write the model folder, its manifest last; return it."""
    saved = static_settings(settings, table.vectors.shape[1], str(asked["weights"]))
    names = save_model(out, static_weights(table.vectors), saved, model.tokenizer)
    card = static_card(saved, figures, model.content, biloom_version()).encode()
    details = {**saved, "distilled": figures, "parameters": table.vectors.size}
    return write_result(out, asked, records_of(out, names), details, card)
