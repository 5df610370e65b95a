"""The folders and raw files that a config names as inputs of its stages.

Imports neither Beam nor torch, so that a finished stage is recognised at once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from pipeline.config.recipe import resolve
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.checkpoints import TrainedCheckpoint, named_checkpoint, open_checkpoint
from pipeline.lifecycle.order import SETTINGS, setting_in_effect
from pipeline.lifecycle.stage import CONFIG, StageError
from pipeline.phases import COMPARING, LISTING, phase
from preprocess.config import HuggingFaceConfig, SentencePieceConfig, Source
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.manifest import Manifest, ManifestError, read_manifest
from preprocess.files.search.below import Kind
from preprocess.files.search.found import FileInfo
from preprocess.files.verified import DamagedResult, manifest_of, read_config
from preprocess.reading import changed_inputs
from preprocess.reading.listing import by_kind, describe_left_out, survey


class Inputs(NamedTuple):
    """Raw input.

    Attributes:
        sources: the sources.
        files: the files of each source.
        left_out: number of files and folders inside input folders that were left out, by kind.
    """

    sources: tuple[Source, ...]
    files: list[list[FileInfo]]
    left_out: dict[str, int]


def stage_folder(config: Config, stage: str, other: str | None = None) -> str:
    """Return the absolute path of a stage's folder: ``other`` if given, else the one of this run."""
    return storage.absolute(other or storage.join(config.run.output, stage))


def setting_value(config: Config, key: str) -> str | None:
    """Return the value of a setting that names an input, such as "train.corpus"."""
    section, _, name = key.partition(".")
    value: str | None = getattr(getattr(config, section), name)
    return value


def trained_checkpoint(config: Config, stage: str) -> TrainedCheckpoint:
    """Return the checkpoint that ``stage``, evaluate or export, reads.

    Raises:
        UserError: as in `open_checkpoint`.
    """
    return open_checkpoint(*checkpoint_setting(config, stage), stage_folder(config, "train"))


def checkpoint_setting(config: Config, stage: str) -> tuple[str, str | None]:
    """Return the setting that decides which checkpoint ``stage`` reads, and its value."""
    return setting_in_effect(SETTINGS[stage, "checkpoint.content"], partial(setting_value, config))


def tokenizer_of(config: Config, content: str, used_by: str) -> str:
    """Return the folder of the tokenizer with a content hash.

    It is the one that ``prepare.tokenizer`` names. If the config does not name one, this run is searched,
    and then the runs of the corpora and checkpoints that the config names.

    Args:
        config: the config.
        content: the content hash that the tokenizer must have.
        used_by: end of the message "this is not the tokenizer that ...".

    Raises:
        StageError: the tokenizer is another one.
        ManifestError: the folder holds no finished tokenizer.
    """
    own = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    if config.prepare.tokenizer is None:
        others = (
            *(config.train.corpus, config.evaluate.corpus),
            *(
                named_checkpoint(*checkpoint_setting(config, stage)).folder
                for stage in ("evaluate", "export")
            ),
        )
        found = [
            own,
            *(f for one in others if one for f in tokenizer_folders(storage.absolute(one))),
        ]
        for folder in found:
            with suppress(ManifestError):
                if content_of(folder, "tokenizer") == content:
                    return folder
    if content_of(own, "tokenizer") != content:
        raise StageError(
            f"{own}: this is not the tokenizer that {used_by}; set prepare.tokenizer to that one"
        )
    return own


def tokenizer_folders(folder: str) -> Iterator[str]:
    """Yield folders that may hold the tokenizer of a corpus or a training, given the folder of that stage."""
    yield storage.join(folder.rstrip("/").rpartition("/")[0], "tokenizer")
    manifest = manifest_of(folder)
    try:
        config = read_config(folder, manifest, CONFIG)
        named, output = config["prepare"].get("tokenizer"), config["run"]["output"]
    except DamagedResult:
        if manifest:
            raise
        return
    except (FileNotFoundError, LookupError, TypeError, AttributeError):
        return
    if isinstance(named, str):
        yield storage.absolute(named)
    if isinstance(output, str):
        yield storage.join(storage.absolute(output), "tokenizer")


def trained_config(config: Config) -> Config:
    """Return the config with the settings that follow from the size of the prepared corpus.

    Raises:
        ManifestError: the corpus is not prepared.
    """
    train = config.train
    if train.recipe is None and train.passes is None:
        return config
    corpus = read_manifest(stage_folder(config, "prepare", train.corpus), "prepare")
    return resolve(config, one_pass(corpus))


def one_pass(corpus: Manifest) -> int:
    """Return the number of tokens and document ends in the train split of a corpus."""
    totals = corpus.details["splits"]["train"]
    return int(totals["tokens"]) + int(totals["documents"])


def evaluation_corpus(config: Config) -> str:
    """Return the corpus folder to evaluate on; the training corpus by default."""
    return stage_folder(config, "prepare", config.evaluate.corpus or config.train.corpus)


def input_sources(config: Config, console: Console) -> Inputs:
    """Return the sources of the corpus and their files, and print what was left out of folders."""
    return list_inputs(config.prepare.sources, console)


def list_inputs(sources: tuple[Source, ...], console: Console) -> Inputs:
    """Return sources with their files, and print what was left out of folders."""
    files, left_out = survey_all(sources)
    show_left_out(left_out, console)
    return Inputs(sources, files, by_kind(left_out))


def survey_all(sources: Sequence[Source]) -> tuple[list[list[FileInfo]], Counter[Kind]]:
    """Return the files of each source, and how many files of each kind were left out of folders."""
    with phase(LISTING, "files") as found:
        listed = [survey(source, found.add) for source in sources]
    return [one.files for one in listed], sum((one.left_out for one in listed), Counter())


def changed_files(folder: str, files: Sequence[FileInfo], work: str = "") -> list[str]:
    """Return the names of the raw files that differ from those that a stage read, as `changed` does."""
    with phase(COMPARING, "ranges of files") as compared:
        return changed_inputs.changed(folder, files, work, compared.add)


def check_tokenizer(config: Config, files: Sequence[FileInfo]) -> None:
    """Refuse the tokenizer of this run if files changed since it was made.

    A tokenizer that ``prepare.tokenizer`` names may be made from any text.

    Raises:
        StageError: a file changed.
    """
    if config.prepare.tokenizer:
        return
    folder = stage_folder(config, "tokenizer")
    if names := changed_files(folder, files):
        raise StageError(
            f"{folder} was made before {one_line(names[0])}{' and others' * (len(names) > 1)} "
            "changed; make it again with `biloom tokenizer --overwrite`, or set prepare.tokenizer to "
            "this folder to use it unchanged"
        )


def show_left_out(left_out: Mapping[Kind, int], console: Console) -> None:
    """Print what was left out of folders, if anything was."""
    if left_out:
        console.line(f"left out of folders: {describe_left_out(left_out)}")


def given_tokenizer(config: Config) -> str | None:
    """Return the path of the tokenizer file to use, None if a tokenizer is learnt."""
    if isinstance(config.tokenizer, HuggingFaceConfig):
        return config.tokenizer.given
    return config.tokenizer.file if isinstance(config.tokenizer, SentencePieceConfig) else None


def known_folders(config: Config) -> list[str]:
    """Return the absolute paths of the corpora in ``prepare.known``, each once.

    Raises:
        StageError: one of them is the corpus that is to be prepared.
    """
    own = stage_folder(config, "prepare").rstrip("/")
    folders = [storage.absolute(name).rstrip("/") for name in config.prepare.known_corpora]
    if own in folders:
        raise StageError(
            f"prepare.known: {own} is the corpus that is prepared; all its documents would be dropped"
        )
    return [*dict.fromkeys(folders)]


def no_documents(
    config: Config, remedy: str = "set prepare.input to files with text"
) -> StageError:
    """Return the error for raw input without any document."""
    paths = ", ".join(path for source in config.prepare.sources for path in source.paths)
    return StageError(f"{one_line(paths)}: no documents found; {remedy}")


def content_of(folder: str, stage: str) -> str:
    """Return the content hash of a finished stage.

    Raises:
        ManifestError: the folder holds no finished stage of this name.
    """
    return read_manifest(folder, stage).content
