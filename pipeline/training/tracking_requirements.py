"""Requirements of the loggers, checked before the first stage. Imports no torch and no Lightning."""

import importlib.util
import os

from pipeline.config.schema import Config
from pipeline.lifecycle.stage import StageError
from preprocess.files import storage


def check_tracking(config: Config) -> None:
    """Check that the loggers that the config enables can write.

    Raises:
        StageError: TensorBoard is enabled and its folder is in a store, or a package is not installed.
    """
    if config.tracking.tensorboard:
        folder = config.tracking.tensorboard_folder
        if storage.is_remote(folder or config.run.output):
            key = "tracking.tensorboard_folder" if folder else "run.output"
            raise StageError(
                f"tracking.tensorboard can write only local files, but {key} "
                f"({folder or config.run.output}) is in a store; set tracking.tensorboard_folder to a "
                "local folder, or tracking.tensorboard to false (metrics.jsonl has the same metrics)"
            )
        if importlib.util.find_spec("tensorboardX") is None:
            raise StageError(
                "tracking.tensorboard is true, but tensorboardX is not installed; pip install "
                "'biloom[tensorboard]', or set it to false"
            )
    wandb = config.tracking.wandb == "offline" and os.environ.get("WANDB_MODE") != "disabled"
    if wandb and importlib.util.find_spec("wandb") is None:
        raise StageError(
            "tracking.wandb is offline, but wandb is not installed; pip install 'biloom[wandb]', or "
            "set it to off"
        )
