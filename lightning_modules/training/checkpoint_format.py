"""The format of training checkpoints: that of Lightning, with the progress of `LitBiLM`.

Checkpoints of format 2, which biloom 0.1 wrote, had the progress without Lightning's parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.__version__ import version

from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.errors import UserError

CHECKPOINT_FORMAT, FORMER_FORMAT = 3, 2


def make_resumable(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Add what a checkpoint of format 2 lacks, in place, so that a Trainer can resume from it.

    Args:
        checkpoint: a checkpoint of any format.
        accumulate: windows of a step.

    Raises:
        UserError: if it has another format than 2 and 3.
    """
    number = checkpoint.get("format", 1)
    if number == CHECKPOINT_FORMAT:
        return
    if number != FORMER_FORMAT:
        raise UserError(
            f"this checkpoint has format {number}, but this version of biloom resumes from formats "
            f"{FORMER_FORMAT} and {CHECKPOINT_FORMAT}; use the version that wrote it, or train again "
            "from the start with --overwrite"
        )
    with fits():
        step = checkpoint["step"]
        windows = step * accumulate
        checkpoint |= {
            "format": CHECKPOINT_FORMAT,
            "windows": windows,
            "epoch": 0,
            "global_step": step,
            "pytorch-lightning_version": version,
            "optimizer_states": [checkpoint.pop("optimizer")],
            "lr_schedulers": [{"last_epoch": step, "_step_count": step + 1, "lr_lambdas": [None]}],
            "loops": {"fit_loop": _fit_loop(step, windows)},
            "callbacks": {},
            "TokenShardDataModule": {},
        }


def _fit_loop(step: int, windows: int) -> dict[str, Any]:
    """Return the state of a Trainer's loop in its first epoch, at the end of a step's last batch."""

    def progress(ready: int, **other: int) -> dict[str, Any]:
        counts = {"ready": ready, "completed": ready, **other}
        return {"total": counts, "current": dict(counts)}

    def batches(number: int, completed: int) -> dict[str, Any]:
        counts = progress(number, started=number, processed=number)
        for of in counts.values():
            of["completed"] = completed
        return counts

    empty: dict[str, Any] = {}
    optimizer = "epoch_loop.automatic_optimization"
    return {
        "state_dict": empty,
        "epoch_loop.state_dict": {"_batches_that_stepped": step - 1},
        "epoch_loop.batch_progress": {**batches(windows, windows - 1), "is_last_batch": False},
        "epoch_loop.scheduler_progress": progress(step),
        f"{optimizer}.state_dict": empty,
        f"{optimizer}.optim_progress": {
            "optimizer": {"step": progress(step), "zero_grad": progress(step, started=step)}
        },
        "epoch_loop.manual_optimization.state_dict": empty,
        "epoch_loop.manual_optimization.optim_step_progress": progress(0),
        "epoch_loop.val_loop.state_dict": empty,
        "epoch_loop.val_loop.batch_progress": {**batches(0, 0), "is_last_batch": False},
        "epoch_progress": {
            place: {"ready": 1, "completed": 0, "started": 1, "processed": 0}
            for place in ("total", "current")
        },
    }


def check_shapes(checkpoint: dict[str, Any], network: BiLMNetwork, rows: int) -> None:
    """Compare the weights and the recurrent state of a checkpoint with a network.

    Args:
        checkpoint: a checkpoint of the current format.
        network: the network that resumes from it.
        rows: rows of a batch, over all ranks.

    Raises:
        ValueError: if they differ.
    """
    shapes = {f"network.{name}": w.shape for name, w in network.state_dict().items()}
    found = {name: w.shape for name, w in checkpoint["state_dict"].items()}
    # A subclass may have other weights beside those of the network.
    found = {name: shape for name, shape in found.items() if name.startswith("network.")}
    if shapes != found:
        different = sorted(k for k in shapes | found if shapes.get(k) != found.get(k))
        raise ValueError(f"other weights, or of other shapes: {', '.join(different[:3])}")
    if checkpoint["carried_state"].shape != network.zero_state(rows).shape:
        raise ValueError("a recurrent state of another shape")


@contextmanager
def fits() -> Iterator[None]:
    """Turn an error of a checkpoint with other keys or shapes than expected into a `UserError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1]
        raise UserError(
            f"the checkpoint does not fit the model and its settings ({reason.strip()}); restore it "
            "from a backup, or train again from the start with --overwrite"
        ) from error
