"""The answer of `biloom look` as tables and lines, and the lines of an estimate."""

from textwrap import shorten

from pipeline.commands.look.answer import Answer, FileGroup, SourceAnswer
from pipeline.commands.look.estimates import Amount, Estimate
from pipeline.console import Console, count
from pipeline.training.forecast import duration
from preprocess.errors import one_line

SHOWN_GROUPS = 12
"""Name endings that are shown; the others are summed up."""
SHOWN_MESSAGES = 5
SHOWN_SHARES = 4
"""Messages about refused files, and scripts or languages, that are shown."""
DOCUMENT_WIDTH = 110
EXCERPT_WIDTH = 60
"""Characters of a document and of a rejected record that are shown."""
FEWEST_PERCENT = 0.005
"""Smaller shares of a script or a language are not shown."""


def show(answer: Answer, console: Console) -> None:
    """Print an answer."""
    console.line(
        f"read {count(answer.read_bytes)}B of {count(answer.bytes)}B, in {answer.read_files:,} of "
        f"{answer.files:,} {'file' if answer.files == 1 else 'files'} (seed {answer.seed})"
    )
    _show_files(answer, console)
    for message, number in answer.refused[:SHOWN_MESSAGES]:
        more = f" (and {number - 1:,} more of the files that were read)" if number > 1 else ""
        console.warn(f"{one_line(message)}{more}")
    if len(answer.refused) > SHOWN_MESSAGES:
        console.warn(f"{len(answer.refused) - SHOWN_MESSAGES:,} more problems; --json has all")
    _show_documents(answer, console)
    for source in answer.sources:
        _show_losses(source, console)
        _show_fields(source, console)
    for source in answer.sources:
        if source.first:
            console.line(f"first documents of {source.name}, as prepare would write them:")
        for document in source.first:
            dropped = f"dropped as {document.dropped}: " if document.dropped else ""
            console.line(f"  {dropped}{_cut(document.text, DOCUMENT_WIDTH)}")
    show_estimates(answer, console)


def show_estimates(answer: Answer, console: Console) -> None:
    """Print how prepare would run, and what it needs."""
    settings = answer.settings
    where = settings["engine"]
    if "mode" in settings:
        workers = settings["workers"]
        where = f"{settings['mode']}, {workers} {'worker' if workers == 1 else 'workers'}"
    units = settings["units"]
    console.line(
        f"prepare would read {units:,} {'unit' if units == 1 else 'units'} of work ({where})"
    )
    for stage, estimate in answer.estimates.items():
        console.line(estimate_line(stage, estimate))
    if recipe := settings.get("recipe"):
        console.line(recipe)
    if "{" in settings["input"]:
        console.line(f"to read it so in other commands, set '{settings['input']}'")
    if answer.problem:
        console.warn(f"no estimate of time, memory and disk: {answer.problem}")


def estimate_line(stage: str, estimate: Estimate) -> str:
    """Return a line such as "prepare: about 12 s (9 to 16 s), 230 MB of memory, ..."."""
    parts = []
    if estimate.seconds:
        parts.append(f"about {_times(estimate.seconds)}")
    if estimate.seconds is None or estimate.is_elsewhere or (estimate.processes or 1) > 1:
        parts.append(f"{_times(estimate.cpu_seconds)} of CPU time")
    memory = f"{_sizes(estimate.memory)} of memory"
    if estimate.is_elsewhere:
        memory += " for each worker"
    elif estimate.processes and estimate.processes > 1:
        memory += f" in {estimate.processes} processes"
    parts.append(memory)
    if estimate.disk.likely:
        parts.append(f"{_sizes(estimate.disk)} of disk while it runs")
        parts.append(f"{count(estimate.result.likely)}B after it")
    return f"{stage}: {', '.join(parts)}"


def _times(amount: Amount) -> str:
    likely, low, high = (duration(seconds) for seconds in amount)
    if low == high:
        return likely
    if low.split()[-1] == high.split()[-1]:
        low = low.split()[0]
    return f"{likely} ({low} to {high})"


def _sizes(amount: Amount) -> str:
    low, high = count(amount.low), count(amount.high)
    # Bytes have no letter before the B.
    same = low[-1] == high[-1] or (low[-1].isdigit() and high[-1].isdigit())
    low = low.rstrip("kMGT") if same else f"{low}B"
    return f"{count(amount.likely)}B ({low} to {high}B)"


def _show_files(answer: Answer, console: Console) -> None:
    rows = [_file_row(group) for group in answer.groups[:SHOWN_GROUPS]]
    if rest := answer.groups[SHOWN_GROUPS:]:
        files, size = sum(group.files for group in rest), sum(group.bytes for group in rest)
        read = sum(group.read for group in rest)
        rows.append(
            ["", f"{len(rest):,} more endings", f"{files:,}", f"{count(size)}B", f"{read:,}", ""]
        )
    header = ["source", "names", "files", "size", "read", "content of those that were read"]
    console.table("files", header, rows)


def _file_row(group: FileGroup) -> list[str]:
    total = sum(group.kinds.values())
    content = "; ".join(
        kind if number == total else f"{number:,} {kind}" for kind, number in group.kinds.items()
    )
    names = f"*{one_line(group.ending)}" if group.ending else "without ending"
    return [
        group.source,
        names,
        f"{group.files:,}",
        f"{count(group.bytes)}B",
        f"{group.read:,}",
        content,
    ]


def _show_documents(answer: Answer, console: Console) -> None:
    exact = answer.read_files == answer.files and answer.read_bytes >= answer.bytes
    about = "" if exact else "~"
    rows = [
        [
            source.name,
            f"{about}{count(source.documents)}",
            f"{about}{count(source.text_bytes)}B",
            *(f"{length:,}" for length in source.lengths.values()),
            _shares(source.scripts),
            "needs biloom[languages]" if source.languages is None else _shares(source.languages),
            f"{about}{source.repeated:.1%}",
        ]
        for source in answer.sources
    ]
    header = ["source", "documents", "text", *source_lengths(answer), "scripts", "languages"]
    console.table("documents (lengths in characters)", [*header, "repeated text"], rows)


def source_lengths(answer: Answer) -> list[str]:
    """Return the names of the lengths."""
    return list(answer.sources[0].lengths)


def _shares(shares: dict[str, float]) -> str:
    shown = [(name, share) for name, share in shares.items() if share >= FEWEST_PERCENT]
    return ", ".join(f"{name} {share:.0%}" for name, share in shown[:SHOWN_SHARES]) or "-"


def _show_losses(source: SourceAnswer, console: Console) -> None:
    if not source.dropped:
        return
    rows = []
    for reason, number in source.dropped.items():
        excerpt, where = source.examples.get(reason, ("", ""))
        example = f"{_cut(where, EXCERPT_WIDTH)}: {_cut(excerpt, EXCERPT_WIDTH)}" if where else ""
        rows.append([reason, f"{number:,}", example])
    console.table(
        f"not kept of {source.name}, in the sample", ["reason", "records", "example"], rows
    )


def _show_fields(source: SourceAnswer, console: Console) -> None:
    if not source.fields:
        return
    console.warn(f"most records of {source.name} have no text: {source.remedy}")
    rows = [
        [field.path, f"{field.share:.0%}", f"{field.characters:,.0f}"] for field in source.fields
    ]
    console.table("fields of strings", ["field", "records", "mean characters"], rows)


def _cut(text: str, width: int) -> str:
    return shorten(text, width, placeholder=" ...") if " " in text[:width] else text[:width]
