"""Weights & Biases where it is wanted and can be had; metrics.jsonl is written in any case."""

import importlib.util
import json
import netrc
import os
from typing import Any
from urllib.parse import urlparse

from pipeline.config import Config, TrackingConfig
from pipeline.config_file import dump_config
from pipeline.console import Console
from pipeline.stage import Place, require
from preprocess import storage

HOST = "https://api.wandb.ai"


def wandb_mode(tracking: TrackingConfig) -> tuple[str | None, str]:
    """ "online", "offline" or none, and a line that says why."""
    if tracking.wandb == "off" or os.environ.get("WANDB_MODE") == "disabled":
        return None, "wandb: off"
    if tracking.wandb == "offline" or os.environ.get("WANDB_MODE") == "offline":
        require("train with tracking.wandb=offline", {"wandb": "wandb"})
        return "offline", "wandb: offline (`wandb sync` sends it later)"
    if not _has_key():
        return None, "wandb: off, no key found (`wandb login` sets one); metrics.jsonl has the same"
    if importlib.util.find_spec("wandb") is None:
        return None, "wandb: off, a key is there but not the package; pip install 'biloom[wandb]'"
    return "online", "wandb: on"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", HOST)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_logger(config: Config, place: Place, console: Console) -> Any:
    """Lightning's wandb logger under this training's run id, or False."""
    mode, line = wandb_mode(config.tracking)
    console.line(line)
    if mode is None:
        return False
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    path = storage.join(place.work, "wandb.json")
    if not storage.exists(path):
        storage.write_bytes(path, json.dumps({"id": wandb.util.generate_id()}).encode())
    settings = wandb.Settings(console="off", silent=True)
    folder = place.folder if not storage.is_remote(place.folder) else None
    logger = WandbLogger(
        project=config.tracking.project,
        name=config.tracking.name,
        id=json.loads(storage.read_bytes(path))["id"],
        resume="allow",
        offline=mode == "offline",
        save_dir=folder or ".",
        settings=settings,
    )
    logger.experiment.config.update({"config": dump_config(config)}, allow_val_change=True)
    return logger
