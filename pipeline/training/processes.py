"""The global rank of this process, from environment variables; imports nothing heavy.

The user starts one process per machine (NODE_RANK), and Lightning starts the others of the machine
(LOCAL_RANK); or torchrun or SLURM starts all processes (RANK, SLURM_PROCID).
"""

import os

from lightning_modules.training.config import TrainConfig


def process_rank(devices: int) -> int:
    """Return the global rank of this process, in a training with ``devices`` per machine."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _number("RANK")
    if _number("SLURM_NTASKS") > 1:
        return _number("SLURM_PROCID")
    return (_number("NODE_RANK") or _number("GROUP_RANK")) * devices + _number("LOCAL_RANK")


def is_further_process(train: TrainConfig) -> bool:
    """Return True if this process is not rank 0, which runs the stages and writes the results."""
    alone = train.devices == 1 and train.num_nodes == 1
    return not alone and process_rank(train.devices or 1) > 0


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0
