"""The configuration reference: Markdown made from the pydantic schema of the config."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from pipeline.config.annotated import allowed
from pipeline.config.diagnostics import sections
from pipeline.config.load import flow_yaml
from pipeline.config.schema import Config
from preprocess.config import Source
from preprocess.section import Section

NOT_FINGERPRINTED = {"run", "runner", "report", "tracking"}
"""Sections that no stage puts into its fingerprint."""

LIST_ENTRY = "prepare.input[]"
"""How the keys of an entry of `prepare.input` are written."""

NOTES = {
    "prepare.input": "An entry of the list is a path or a source; `prepare.input[]` below has the "
    "keys of a source. Only the names and the sizes of the files are compared, not their folder.",
    "embed.input": "A source has the keys of `prepare.input[]`.",
    "train.steps": "A larger number resumes a finished training.",
    **dict.fromkeys(
        ("train.evaluate_steps", "train.evaluate_share", "train.evaluate_rows"),
        "Changes the result if `train.schedule.kind` is `plateau`, or if `train.patience` or "
        "`train.optimizer.average_after` is set, because these depend on the held-out text.",
    ),
}
"""What the schema cannot say."""

BY_CONTENT = {
    *("prepare.tokenizer", "train.corpus", "train.init_from", "evaluate.corpus"),
    *("train.teacher.model", "evaluate.checkpoint", "export.checkpoint", "embed.model"),
}
"""Paths that change the result by what is found there."""

BY_FILES = {
    *(f"prepare.filters.urls.{name}" for name in ("folders", "domains", "urls", "words")),
    *("prepare.filters.c4.bad_words", "prepare.decontamination.benchmarks"),
}
"""Paths of lists and benchmarks that change the result by the content of the files."""


@dataclass(frozen=True)
class Key:
    """A key of the config, as one kind of its section has it."""

    name: str
    section: str
    kind: str | None
    """The ``kind`` of the section that has this key, or None where every kind has it."""
    values: str
    default: str
    description: str
    changes_result: bool


def config_keys() -> list[Key]:
    """Every key of the config, in the order of the schema; a key of two kinds is there twice."""
    return list(_below(Config, "", None))


def _below(section: type[Section], prefix: str, kind: str | None) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        members = sections(field)
        if not members:
            yield _key(key, prefix, kind, field)
            if key == "prepare.input":
                yield from _below(Source, LIST_ENTRY, None)
        elif len(members) == 1:
            if field.get_default() is None and not field.is_required():
                yield _key(key, prefix, kind, field)
            yield from _below(members[0], key, kind)
        else:
            yield _choice(key, members, field)
            for member in members:
                of = str(member.model_fields["kind"].default)
                yield from (one for one in _below(member, key, of) if one.name != f"{key}.kind")


def _choice(key: str, members: list[type[Section]], field: FieldInfo) -> Key:
    kinds = " | ".join(str(member.model_fields["kind"].default) for member in members)
    changes = key.partition(".")[0] not in NOT_FINGERPRINTED
    what = field.description or ""
    return Key(f"{key}.kind", key, None, f"`{kinds}`", f"`{field.default.kind}`", what, changes)


def _key(key: str, section: str, kind: str | None, field: FieldInfo) -> Key:
    extra = field.json_schema_extra
    runtime = isinstance(extra, dict) and extra.get("changes_result") is False
    return Key(
        key,
        section,
        kind,
        f"`{allowed(field)}`",
        "must be given" if field.is_required() else f"`{flow_yaml(field.get_default())}`",
        field.description or "",
        not runtime and key.partition(".")[0] not in NOT_FINGERPRINTED,
    )


def markdown() -> str:
    """The whole reference: a heading a section, a `confval` a key."""
    found = config_keys()
    parts: list[str] = []
    for section in dict.fromkeys(key.section for key in found):
        depth = "##" if "." not in section else "###"
        parts.append(f"{depth} {section}\n\n{_about(section)}".strip())
        of = [key for key in found if key.section == section]
        kinds = {key.kind for key in of if key.kind}
        names = dict.fromkeys(key.name for key in of)
        parts += [_entry([key for key in of if key.name == one], len(kinds)) for one in names]
    return "\n\n".join(parts) + "\n"


def _about(section: str) -> str:
    if section == LIST_ENTRY:
        return "A source: an entry of the lists `prepare.input` and `embed.input`."
    field: FieldInfo | None = None
    within: type[Section] = Config
    for name in section.removeprefix(f"{LIST_ENTRY}.").split("."):
        if name not in within.model_fields:
            return ""
        field = within.model_fields[name]
        members = sections(field)
        within = members[0] if len(members) == 1 else Section
    text = (field.description if field else "") or ""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _entry(variants: list[Key], kinds: int) -> str:
    first = variants[0]
    same = len({(v.values, v.default, v.description) for v in variants}) == 1
    by_kind = [v for v in variants if v.kind]
    lines = [f"```{{confval}} {first.name}"]
    if same:
        lines += [f":type: {first.values}", f":default: {first.default}"]
    else:
        values = {v.values for v in variants}
        lines.append(f":type: {first.values if len(values) == 1 else 'depends on the kind'}")
        lines.append(
            ":default: " + "; ".join(f"{v.default} ({v.kind})" for v in by_kind)
            if len({v.default for v in variants}) > 1
            else f":default: {first.default}"
        )
    lines += ["", _sentence(first.description)]
    if len({v.description for v in variants}) > 1:
        lines[-1] = "\n".join(f"- {v.kind}: {_sentence(v.description)}" for v in by_kind)
    if 0 < len(by_kind) < kinds:
        lines += ["", "Kinds: " + ", ".join(f"`{v.kind}`" for v in by_kind) + "."]
    if note := NOTES.get(first.name):
        lines += ["", note]
    changes = "yes" if first.changes_result else "no"
    if first.name in BY_CONTENT:
        changes = "by the content of that folder, not by its path"
    elif first.name in BY_FILES:
        changes = "by the content of the files, not by their paths"
    lines += ["", f"Changes the result: {changes}.", "```"]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """``text`` with a capital and a full stop; a first word that is a value stays as it is.

    A ``<`` is escaped, because Markdown would take ``<unk>`` for a tag and show nothing.
    """
    first = text.split(" ")[0]
    if re.fullmatch(r"[a-z-]+,?", first):
        text = f"{text[:1].upper()}{text[1:]}"
    text = text.replace("<", r"\<")
    return text if text.endswith(".") or not text else f"{text}."
