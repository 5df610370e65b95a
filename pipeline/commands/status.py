"""`biloom status`: the state of every stage of a run folder, without a config."""

from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple

from pipeline.commands.run_folder import check_run
from pipeline.console import Console, clock, count
from pipeline.lifecycle.checkpoints import named_checkpoint
from pipeline.lifecycle.heartbeat import Heartbeat, heartbeat
from pipeline.lifecycle.order import MAKERS, SETTINGS, STAGE_ORDER, setting_in_effect
from pipeline.lifecycle.stage import CONFIG, REPLACES, StageError, StageFolder, read_stats
from pipeline.progress import read_record
from pipeline.reports.perplexity_tables import Figures, evaluations, figure, ways
from preprocess.files import storage
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest
from preprocess.files.modified import modified
from preprocess.files.verified import DamagedResult, read_config
from preprocess.reading.plan_file import count_planned
from preprocess.work.damage import DamagedWork
from preprocess.work.done import record_counts
from preprocess.work.folder import checkpoint_steps, status_file, unfinished_work

State = Literal["not begun", "running", "unfinished", "killed", "done", "refused", "damaged"]
BAD = ("refused", "damaged")
RESUMED = ("unfinished", "killed")
QUIET_SECONDS = 300.0
"""Time without progress after which advice is shown."""


class Status(NamedTuple):
    """The state of a stage.

    Attributes:
        state: "refused" means that the stage is finished, but its inputs have changed since; "killed",
            that its process ended without releasing the lock.
        notes: sentences for the user.
        size: size of the files, as "12.3MB".
        time: duration of the stage, as in `pipeline.console.clock`.
        date: when it was finished. The last three are "-" if not known.
    """

    state: State
    notes: tuple[str, ...] = ()
    size: str = "-"
    time: str = "-"
    date: str = "-"


def status(path: str) -> int:
    """Show the state of every stage of the run folder ``path``.

    Returns:
        0, or 1 if a stage is damaged or refused.

    Raises:
        RunFolderError: the folder holds no stage of a run.
    """
    run = check_run(path)
    console = Console()
    console.stage("run", run)
    found = {stage: status_of(run, stage) for stage in STAGE_ORDER}
    rows = [[stage, one.state, one.size, one.time, one.date] for stage, one in found.items()]
    console.table("stages", ["stage", "state", "size", "time", "finished"], rows)
    for stage, one in found.items():
        tell = console.warn if one.state in BAD else console.line
        for note in one.notes:
            tell(f"{stage}: {note}")
    if to_resume := [stage for stage, one in found.items() if one.state in RESUMED]:
        console.line(f"next: run the same command again, which resumes {', '.join(to_resume)}")
    return 1 if any(one.state in BAD for one in found.values()) else 0


def status_of(run: str, stage: str) -> Status:
    """Return the state of ``stage`` in the run folder ``run``."""
    place = StageFolder(storage.join(run, stage))
    holder = heartbeat(place.lock)
    is_running = holder is not None and not holder.has_ended
    try:
        works = unfinished_work(place.folder)
    except DamagedWork as error:
        return Status("damaged", (str(error).removeprefix(f"{place.folder}/"),))
    notes = [_held(holder)] if holder else []
    for work, request in works:
        notes += _unfinished(work, request, holder.who if holder and is_running else "")
    try:
        manifest = read_manifest(place.folder, stage) if storage.exists(place.file(NAME)) else None
    except ManifestError as error:
        return Status("damaged", (*notes, str(error).removeprefix(f"{place.folder}: ")))
    if manifest is None:
        begun: State = "killed" if holder else "unfinished" if works else "not begun"
        return Status("running" if is_running else begun, tuple(notes))
    state: State = "running" if is_running else "done"
    for is_continued, note in _other_inputs(run, place, manifest):
        notes.append(note)
        state = state if is_continued else "refused"
    if missing := manifest.records.keys() - set(storage.list_names(place.folder)):
        state = "damaged"
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        notes.append(f"{min(missing)}{more} listed in {NAME}, but missing")
    elif damaged := _damage(place, manifest):
        state = "damaged"
        notes += damaged
    try:
        found = evaluations(manifest.details) if stage == "evaluate" else []
    except ManifestError as error:
        return Status("damaged", (*notes, str(error)))
    notes += [_evaluated(one) for one in found] if len(found) > 1 else []
    size = count(sum(file.bytes for file in manifest.files)) + "B" if manifest.files else "-"
    return Status(state, tuple(notes), size, _time(place, manifest), _date(place))


def _evaluated(figures: Figures) -> str:
    """Describe the result of a split by its last perplexity: the average, or the only direction's."""
    if not figures["tokens"]:
        return f"the {figures['split']} split is empty"
    way = ways(figures)[-1]
    shown = figure(figures.get(f"{way}_perplexity"))
    return f"{figures['split']} split: {way} perplexity per token {shown}"


def _held(holder: Heartbeat) -> str:
    """Describe the process that holds the lock."""
    age = holder.age
    if holder.has_ended:
        last = "" if age is None else f" (last heartbeat {_ago(age)})"
        return f"locked by {holder.who}, which no longer runs{last}; the next run takes over"
    return f"being written by {holder.who}" + (
        "" if age is None else f"; last heartbeat {_ago(age)}"
    )


def _ago(seconds: float) -> str:
    return f"{clock(max(seconds, 0.0))} ago"


def _unfinished(work: str, request: dict[str, Any], running: str) -> list[str]:
    """Describe the progress of unfinished work; ``running`` names the process that runs, if any."""
    record = read_record(status_file(work))
    # Until a resumed run writes its first record, the record is that of the former run.
    notes = _recorded(record, record["process"] == running) if record else []
    if steps := checkpoint_steps(work):
        notes.append(f"unfinished work: saved at step {steps[-1]:,} of {request['train.steps']:,}")
    # The records of units are listed only if there is no other record of the progress: they may be many.
    elif not (record and record["work"]) and (units := count_planned(work)):
        read, _, finished = record_counts(work)
        notes.append(f"unfinished work: {read:,} of {units:,} units read, {finished:,} finished")
    return notes or ["unfinished work: nothing to resume from yet"]


def _recorded(record: dict[str, Any], is_running: bool) -> list[str]:
    """Describe the progress that a process recorded last, and whether that process runs."""
    notes = []
    if record["work"]:
        share = f"{record['done'] / record['planned']:.0%}" if record["planned"] else ""
        figures, shown = record["figures"], [share, record["note"]]
        if isinstance(units := figures.get("units"), int):
            read, finished = (figures.get(f"units_{name}", 0) for name in ("read", "finished"))
            shown.append(f"{read:,} of {units:,} units read, {finished:,} finished")
        # Both times are by the clock of the machine that runs the stage.
        still = record["written"] - record["moved"] if is_running else None
        moved = f"last progress {datetime.fromtimestamp(record['moved']):%Y-%m-%d %H:%M:%S}"
        if still is not None:
            moved = f"last progress {_ago(still)}"
        part = "" if record["work"] == record["stage"] else f"{record['work']}: "
        notes.append(part + ", ".join(filter(None, [*shown, moved])))
        if still is not None and still > QUIET_SECONDS:
            notes.append(
                f"no progress for more than {clock(QUIET_SECONDS)}; see 'When nothing moves' on the page "
                "Operations of the documentation"
            )
    if record["page"] and is_running:
        notes.append(f"the job's page: {record['page']}")
    return notes


def _other_inputs(run: str, place: StageFolder, manifest: Manifest) -> list[tuple[bool, str]]:
    """Return a note for each input that has changed since, and whether it continues the former one."""
    notes = []
    named = _named_folders(place, manifest)
    for (stage, key), settings in SETTINGS.items():
        if stage != manifest.stage or key not in manifest.asked:
            continue
        maker, what = MAKERS[key]
        setting, value = setting_in_effect(settings, named.get)
        try:
            if what == "checkpoint":
                value = named_checkpoint(setting, value).folder
            folder = storage.absolute(value or storage.join(run, maker))
            made = read_manifest(folder, maker)
        except (ManifestError, StageError):
            continue  # missing, or damaged, which its own line reports
        if made.content == manifest.asked[key]:
            continue
        other = f"made from another {what} than the one in {folder} now; "
        if manifest.asked[key] in made.details.get(REPLACES, ()):
            notes.append((True, f"{other}the next run follows it, because it was continued"))
        else:
            notes.append((False, f"{other}--overwrite makes it again"))
    return notes


def _named_folders(place: StageFolder, manifest: Manifest) -> dict[str, str]:
    """Return the text settings of the stage's config, such as ``{"train.corpus": ...}``."""
    try:
        config = read_config(place.folder, manifest, CONFIG)
        sections = {name: section for name, section in config.items() if isinstance(section, dict)}
    except (FileNotFoundError, DamagedResult):
        return {}  # `_damage` reports it
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.items()
        if isinstance(value, str)
    }


def _damage(place: StageFolder, manifest: Manifest) -> list[str]:
    """Return a note for each of the files beside the result that is damaged."""
    notes = []
    for read in (partial(read_config, name=CONFIG), read_stats):
        try:
            read(place.folder, manifest)
        except FileNotFoundError:
            continue  # earlier versions did not list it
        except DamagedResult as error:
            notes.append(str(error).removeprefix(f"{place.folder}/"))
    return notes


def _time(place: StageFolder, manifest: Manifest) -> str:
    try:
        return clock(read_stats(place.folder, manifest)["seconds"])
    except (FileNotFoundError, DamagedResult, KeyError, TypeError):
        return "-"


def _date(place: StageFolder) -> str:
    """Return when the manifest was written; "-" if the store does not tell."""
    written = modified(place.file(NAME))
    return "-" if written is None else f"{datetime.fromtimestamp(written):%Y-%m-%d %H:%M}"
