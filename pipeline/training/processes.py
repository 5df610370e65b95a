"""Which process of a training this is, told by whoever started it; imports nothing heavy.

A training on several devices or machines is one command in many processes: Lightning starts those
of a machine (LOCAL_RANK), whoever has several machines the first of each (NODE_RANK), torchrun or
SLURM all of them (RANK, SLURM_PROCID).
"""

import os

from lightning_modules.training.config import TrainConfig


def process_rank(devices: int) -> int:
    """The number of this process among all of a training, with ``devices`` on each machine."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _number("RANK")
    if _number("SLURM_NTASKS") > 1:
        return _number("SLURM_PROCID")
    return (_number("NODE_RANK") or _number("GROUP_RANK")) * devices + _number("LOCAL_RANK")


def is_further_process(train: TrainConfig) -> bool:
    """Whether another process of this training runs the stages and writes what is made."""
    alone = train.devices == 1 and train.num_nodes == 1
    return not alone and process_rank(train.devices or 1) > 0


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0
