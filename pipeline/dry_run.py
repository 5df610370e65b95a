"""``--dry-run``: the plan of a run, from names and sizes alone; nothing is read or written."""

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.parameter_count import parameter_count
from pipeline.config import Config
from pipeline.config_file import dump_config
from pipeline.console import Console, count
from pipeline.stage import Stage, plan_of
from pipeline.stages import STAGES, input_sources, stage_folder
from preprocess.config import WordConfig
from preprocess.manifest import ManifestError, read_manifest
from preprocess.units import plan_units


def dry_run(config: Config, command: str, console: Console) -> None:
    """Print the merged config, the inputs found, the units, the parameters and each stage's state.

    Raises:
        StorageError: an input is not found.
    """
    print(dump_config(config))
    sources, files = input_sources(config)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    rows = []
    for number, (source, found) in enumerate(zip(sources, files, strict=True)):
        size = sum(file.bytes for file in found)
        own = sum(unit.source == number for unit in units)
        rows.append([source.name, f"{len(found):,}", f"{count(size)}B", f"{own:,}"])
    console.table("inputs", ["source", "files", "size", "units"], rows)
    console.line(_parameters(config))
    stages = STAGES.values() if command == "run" else [STAGES[command]]
    console.table("stages", ["stage", "folder", "state"], [_row(s, config) for s in stages])


def _row(stage: Stage, config: Config) -> list[str]:
    try:
        state = plan_of(stage, config)
    except ManifestError:
        state = "to be made, after the stage before it"
    return [stage.name, stage.folder(config), state]


def _parameters(config: Config) -> str:
    try:
        folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
        vocabulary = int(read_manifest(folder, "tokenizer").details["vocabulary"])
    except ManifestError:
        if isinstance(config.tokenizer, WordConfig):
            return "parameters: as many as the words of the corpus ask for"
        vocabulary = config.tokenizer.vocabulary
    head = config.model.head
    given = isinstance(head, AdaptiveSoftmaxConfig) and head.cutoffs != "auto"
    cutoffs = head.cutoffs if given else ()  # type: ignore[union-attr]
    number = parameter_count(config.model, vocabulary, tuple(cutoffs))
    return (
        f"parameters: {'' if given else 'at most '}{number:,}, for a vocabulary of {vocabulary:,}"
    )
