"""Settings that are kept and dropped if a later file or an override changes the `kind` of a section."""

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import kind_of, section_of, sections, shown
from pipeline.config.yaml_source import EMPTY, Node
from preprocess.section import Section

OTHER_MEANING = (
    "model.input.dim",  # width of the vector of an id, or of a character
    "tokenizer.file",  # a SentencePiece model, or a tokenizer.json
    "train.optimizer.weight_decay",  # an L2 penalty, or for adamw, decoupled from the gradient
    "runner.options.master",  # address of an engine
    "runner.options.job_server_jar",  # job server of an engine
)
"""Keys that do not mean the same in all kinds that have them.

The value is dropped if the two kinds describe the key in different words.
"""

CHOSEN_FOR_KIND = {"train.optimizer": "learning_rate"}
"""Sections with kinds, each with a key beside it whose right value depends on the kind."""


def change_kind(
    name: str, field: FieldInfo, above: Node, new_above: Node
) -> tuple[Node, Sequence[str]]:
    """Return the settings of a section that remain if its kind changes, and lines for the user.

    Keys that both kinds have keep their value, unless `OTHER_MEANING` lists them. Keys that neither
    kind has are kept, so that they are reported as mistakes.

    Args:
        name: dotted name of the section.
        field: the section's field, with a discriminator.
        above: the section that contains it, in the earlier files.
        new_above: the section that contains it, in the later file or the overrides. Its settings
            override the result, which does not contain them.
    """
    outer, _, key = name.rpartition(".")
    given = new_above.value
    assert isinstance(given, dict)
    former = above.value if isinstance(above.value, dict) else {}
    old, new = former.get(key, EMPTY), given[key]
    if not isinstance(new.value, dict) or "kind" not in new.value:
        return old, ()
    before, after = section_of(field, old), section_of(field, new)
    if before is None or after is None:  # a kind that does not exist, which is reported
        return EMPTY, ()
    if before is after:
        return old, ()
    change = _Change(name)
    left = change.carry(old, new, before, after)
    lines = change.lines(kind_of(field, old), kind_of(field, new))
    beside = CHOSEN_FOR_KIND.get(name, "")
    if beside in former and beside not in given:
        lines.append(
            f"{outer}.{beside} stays {shown(former[beside])}, but the right value depends on {name}.kind"
        )
    return left, lines


class _Change:
    """The settings that are kept and dropped when the kind of the section ``name`` changes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kept: list[str] = []
        self._dropped: list[str] = []
        self._other: list[str] = []
        self._defaults: list[str] = []

    def carry(
        self,
        old: Node,
        new: Node,
        before: type[Section],
        after: type[Section],
        prefix: str = "",
    ) -> Node:
        """Return the settings of ``old`` that remain.

        Args:
            old: the section in the earlier files.
            new: the section in the later file or the overrides.
            before: its former kind.
            after: its new kind.
            prefix: put before the keys in the lines for the user.
        """
        given = new.value if isinstance(new.value, dict) else {}
        settings = old.value if isinstance(old.value, dict) else {}
        left: dict[str, Node] = {}
        for key, node in settings.items():
            former, later = before.model_fields.get(key), after.model_fields.get(key)
            label = f"{prefix}{key}"
            if former is None or later is None:
                if former is None:
                    left[key] = node
                elif key not in given:
                    self._dropped += _settings(node, label)
            elif (parts := (sections(former), sections(later)))[0] != parts[1]:
                below = given.get(key, replace(node, value={}))
                left[key] = self.carry(node, below, parts[0][0], parts[1][0], f"{label}.")
            elif key != "kind" and key not in given:
                if self._means_the_same(label, former, later):
                    left[key] = node
                    self._kept += _settings(node, label)
                else:
                    self._other += _settings(node, label)
        for key, field in after.model_fields.items():
            former = before.model_fields.get(key)
            if former and key not in settings and key not in given and key != "kind":
                self._compare_defaults(f"{prefix}{key}", former, field)
        return replace(old, value=left)

    def lines(self, former: str, kind: str) -> list[str]:
        """Return a line about the settings that were kept and dropped; no line if there are none."""
        parts = (
            (self._kept, f"keeps {{}} of kind {former}"),
            (self._dropped, f"drops {{}} ({kind} has no such setting)"),
            (self._other, f"drops {{}} (another quantity in {kind})"),
            (self._defaults, "by default, {}"),
        )
        told = [text.format(", ".join(names)) for names, text in parts if names]
        return [f"{self._name}.kind={kind}: {'; '.join(told)}"] if told else []

    def _means_the_same(self, label: str, former: FieldInfo, later: FieldInfo) -> bool:
        listed = f"{self._name}.{label}" in OTHER_MEANING
        return not listed or former.description == later.description

    def _compare_defaults(self, label: str, former: FieldInfo, later: FieldInfo) -> None:
        if not sections(later) and former.default != later.default:
            now, was = json.dumps(later.default), json.dumps(former.default)
            self._defaults.append(f"{label} is {now}, not {was}")


def _settings(node: Node, label: str) -> list[str]:
    """Return the settings of a node as ``hidden=2048``, with their keys below the section."""
    if isinstance(node.value, dict):
        return [s for key, below in node.value.items() for s in _settings(below, f"{label}.{key}")]
    return [label if isinstance(node.value, list) else f"{label}={shown(node)}"]
