"""Load the settings of a command that is not a stage, such as a task."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import explain, plain_values
from pipeline.config.load import ConfigError, config_error, read_overrides
from pipeline.config.yaml_source import Problems
from preprocess.section import Section

S = TypeVar("S", bound=Section)


def load_section(kind: type[S], overrides: Sequence[str], stored: S | None = None) -> S:
    """Load a section from ``key.path=value`` arguments.

    Args:
        kind: the section.
        overrides: the arguments.
        stored: settings that the overrides change; None means the defaults.

    Raises:
        ConfigError: the settings have mistakes; all are listed.
    """
    if stray := [word for word in overrides if "=" not in word]:
        example = f"{next(iter(kind.model_fields))}=..."
        raise ConfigError([f"'{stray[0]}' is not a setting; write key=value, such as {example}"])
    problems: Problems = []
    root, top = read_overrides(overrides, 0, problems), FieldInfo(annotation=kind)
    former = stored.model_dump(exclude_unset=True) if stored else {}
    try:
        section = kind.model_validate({**former, **plain_values(root, top)})
    except ValidationError as error:
        raise config_error(problems + explain(error, root, top)) from None
    if problems:
        raise config_error(problems)
    return section
