"""Weights & Biases where it is wanted and can be had; metrics.jsonl is written in any case."""

import importlib.util
import json
import netrc
import os
import secrets
from typing import Any
from urllib.parse import urlparse

from pipeline.config import Config, TrackingConfig
from pipeline.config_file import dump_config
from pipeline.console import Console
from pipeline.stage import Place, StageError
from preprocess import storage

HOST = "https://api.wandb.ai"


def wandb_mode(tracking: TrackingConfig) -> tuple[str | None, str]:
    """Either "online", "offline" or none, and a line that says why.

    Raises:
        StageError: the config asks for wandb offline, and it is not installed.
    """
    mode = os.environ.get("WANDB_MODE")
    if tracking.wandb == "off" or mode == "disabled":
        return None, "wandb: off"
    offline = tracking.wandb == "offline" or mode in ("offline", "dryrun")
    if not offline and not _has_key():
        return None, "wandb: off, no key found (`wandb login` sets one); metrics.jsonl has the same"
    if importlib.util.find_spec("wandb") is None:
        if tracking.wandb == "offline":
            raise StageError(
                "tracking.wandb is offline, but wandb is not installed; pip install "
                "'biloom[wandb]', or set it to off"
            )
        return None, "wandb: off, it is not installed (pip install 'biloom[wandb]')"
    if offline:
        return "offline", "wandb: offline (`wandb sync` sends it later)"
    return "online", "wandb: on"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", HOST)).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_logger(config: Config, place: Place, console: Console) -> Any:
    """Lightning's wandb logger under this training's run id, or False.

    Raises:
        StageError: wandb does not start, as where the key is wrong.
    """
    mode, line = wandb_mode(config.tracking)
    console.line(line)
    if mode is None:
        return False
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    path = storage.join(place.work, "wandb.json")
    if not storage.exists(path):
        storage.write_bytes(path, json.dumps({"id": secrets.token_hex(4)}).encode())
    settings = wandb.Settings(console="off", silent=True, mode=mode)
    wandb.setup(settings)  # before Lightning hands on a setting that wandb warns of
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
    try:
        logger.experiment.config.update({"config": dump_config(config)}, allow_val_change=True)
    except wandb.Error as error:
        raise StageError(
            f"wandb does not start ({error}); set tracking.wandb to offline or off, or mend that"
        ) from error
    return logger
