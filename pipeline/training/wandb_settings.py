"""Read wandb's own settings: its environment variables, settings files and netrc file.

wandb itself is not imported, because that takes a second.
"""

import configparser
import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

from pipeline.config.schema import TrackingConfig

HOST = "https://api.wandb.ai"
"""wandb's server, unless its settings name another one."""
ON = ("1", "true", "yes", "on")


def wandb_mode(tracking: TrackingConfig) -> tuple[str | None, str]:
    """Return "online", "offline" or None, and a line for the console that says why."""
    mode = wandb_setting("mode")
    is_disabled = mode == "disabled" or wandb_setting("disabled").lower() in ON
    if tracking.wandb == "off" or is_disabled:
        return None, "wandb: off"
    offline = tracking.wandb == "offline" or mode in ("offline", "dryrun")
    if not offline and not _has_key():
        return (
            None,
            "wandb: off, no key found (`wandb login` sets one); metrics are in metrics.jsonl",
        )
    if importlib.util.find_spec("wandb") is None:
        return None, "wandb: off, not installed (pip install 'biloom[wandb]')"
    if offline:
        return "offline", "wandb: offline (`wandb sync` uploads the run later)"
    return "online", "wandb: on"


def wandb_setting(name: str) -> str:
    """Return a setting from WANDB_NAME, else from wandb's settings files, else empty text."""
    if value := os.environ.get(f"WANDB_{name.upper()}"):
        return value
    local = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
    own = os.environ.get("WANDB_CONFIG_DIR") or os.path.expanduser("~/.config/wandb")  # noqa: PTH111
    files = configparser.ConfigParser(interpolation=None)
    for folder in (Path(own), local):  # the later file counts
        try:
            files.read(folder / "settings", encoding="utf-8")
        except (OSError, ValueError, configparser.Error):
            continue
    return files.get("default", name, fallback="")


def _has_key() -> bool:
    if wandb_setting("api_key") or wandb_setting("identity_token_file"):
        return True
    host = urlparse(wandb_setting("base_url") or HOST).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):
        return False
