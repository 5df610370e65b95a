"""``--dry-run``: the plan of a run, from names and sizes alone; nothing is read or written."""

from collections.abc import Sequence

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.sizes import parameter_count
from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.registry import STAGES, embed_sources, input_sources, stage_folder
from pipeline.lifecycle.stage import Stage
from pipeline.lifecycle.state import plan_of
from pipeline.stages.run import stages_of_run
from preprocess.config import SentencePieceConfig, Source, WordConfig
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.files.storage import FileInfo
from preprocess.reading.listing import list_source
from preprocess.reading.units import plan_units
from preprocess.tokenizers.subwords import read_sentencepiece


def dry_run(config: Config, command: str, console: Console) -> None:
    """Print the merged config, the inputs found, the units, the parameters and each stage's state.

    Raises:
        StorageError: an input is not found.
    """
    print(dump_config(config))
    stages = stages_of_run(config) if command == "run" else [STAGES[command]]
    names = {stage.name for stage in stages}
    embedded = embed_sources(config) if "embed" in names else None
    if names & {"tokenizer", "prepare"} or ("embed" in names and not embedded):
        _inputs("inputs", *input_sources(config), config.prepare.unit_bytes, console)
    if embedded:
        found = [list_source(source) for source in embedded]
        _inputs("inputs of embed", embedded, found, None, console)
    console.line(_parameters(config))
    console.table("stages", ["stage", "folder", "state"], [_row(s, config) for s in stages])


def _inputs(
    title: str,
    sources: Sequence[Source],
    files: Sequence[Sequence[FileInfo]],
    unit_bytes: int | None,
    console: Console,
) -> None:
    units = plan_units(sources, files, unit_bytes)
    rows = []
    for number, (source, found) in enumerate(zip(sources, files, strict=True)):
        size = sum(file.bytes for file in found)
        own = sum(unit.source == number for unit in units)
        rows.append([source.name, f"{len(found):,}", f"{count(size)}B", f"{own:,}"])
    console.table(title, ["source", "files", "size", "units"], rows)


def _row(stage: Stage, config: Config) -> list[str]:
    try:
        state = plan_of(stage, config)
    except ManifestError:
        state = "to be made, after the stage before it"
    return [stage.name, stage.folder(config), state]


def _parameters(config: Config) -> str:
    at_most = ""
    try:
        folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
        vocabulary = int(read_manifest(folder, "tokenizer").details["vocabulary"])
    except ManifestError:
        settings = config.tokenizer
        if not isinstance(settings, SentencePieceConfig):
            kind = "words" if isinstance(settings, WordConfig) else "characters"
            return f"parameters: as many as the {kind} of the corpus ask for"
        vocabulary, at_most = settings.vocabulary, "at most "
        if settings.file:
            vocabulary, at_most = read_sentencepiece(settings.file).vocabulary, ""
    head = config.model.head
    cutoffs: tuple[int, ...] = ()
    if isinstance(head, AdaptiveSoftmaxConfig):
        if head.cutoffs == "auto":
            at_most = "at most "
        else:
            cutoffs = head.cutoffs
    number = parameter_count(config.model, vocabulary, cutoffs)
    return f"parameters: {at_most}{number:,}, for a vocabulary of {vocabulary:,}"
