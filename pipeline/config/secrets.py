"""Secrets in a config: refused in URLs, and hidden elsewhere when the config is shown or stored.

A config is copied to the folder of every stage, to the report and to wandb.
"""

import json

from pipeline.config.schema import Config
from pipeline.config.yaml_source import Node, Problems
from preprocess.errors import HIDDEN, hidden, without_secrets

_ADVICE = (
    "holds a user, a password, a token or a signature, which would be copied to the run folder, the "
    "report and wandb; set it in an environment variable, a credentials file or fsspec's own "
    "configuration instead"
)
_OPTIONS = (
    "job_endpoint",
    "artifact_endpoint",
    "environment_config",
    "web_page",
    "master",
    "scheduler",
)
ADDRESSES = tuple(f"runner.options.{name}" for name in _OPTIONS)
"""Settings whose value may be an address without a protocol."""


def secrets_in_urls(node: Node, name: str = "") -> Problems:
    """Return a problem for each setting whose URL holds a secret."""
    value = node.value
    if isinstance(value, dict):
        below = [(f"{name}.{key}" if name else key, entry) for key, entry in value.items()]
    elif isinstance(value, list):
        below = [(f"{name}[{number}]", entry) for number, entry in enumerate(value)]
    else:
        below = []
    if isinstance(value, str):
        is_address = name in ADDRESSES and not value.startswith("{")
        if without_secrets(value) != value or (is_address and hidden(value) != value):
            return [(node.place, f"{name}: {hidden(value)} {_ADVICE}")]
    return [problem for inner, entry in below for problem in secrets_in_urls(entry, inner)]


def without_hidden_settings(config: Config) -> Config:
    """Return the config as it may be shown and stored: with `HIDDEN` in place of secrets."""
    runner = config.runner
    text = getattr(runner.options, "environment_config", None)
    if text is None or (shown := _shown_environment(text)) == text:
        return config
    options = runner.options.model_copy(update={"environment_config": shown})
    return config.model_copy(update={"runner": runner.model_copy(update={"options": options})})


def _shown_environment(text: str) -> str:
    """Hide the secrets of an ``environment_config``, and the values of all environment variables in it.

    The name of a variable does not always show that its value is a secret.
    """
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return hidden(text)
    if isinstance(settings, dict) and isinstance(variables := settings.get("env"), dict):
        settings["env"] = dict.fromkeys(variables, HIDDEN)
        text = json.dumps(settings, ensure_ascii=False)
    return hidden(text)
