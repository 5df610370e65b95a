"""Connect the processes of a training: they meet at an address, and then form a process group."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from pipeline.training.processes import Processes
from pipeline.training.ranks import LocalRanks
from preprocess.errors import JobError, UserError

MEET_SECONDS = 600.0
"""How long the processes wait for each other before training starts."""
COMPARE_SECONDS = 5.0
"""How long rank 0 waits until the others have compared their purposes, if it has to end."""
POLL_SECONDS = 0.05


@contextmanager
def connected(
    processes: Processes, backend: str, device: torch.device, purpose: str, work: Any
) -> Iterator[None]:
    """Start the processes that this one has to start, and connect all of them in the block.

    Args:
        processes: the processes of the training.
        backend: name of the backend of `torch.distributed`.
        device: the device of this process.
        purpose: what the processes are to do; it must be equal in all of them.
        work: arguments for the started processes, see `LocalRanks.start`.

    Raises:
        UserError: the processes do not meet, or are to do different things.
        JobError: another process has ended.
    """
    if processes.world == 1:
        yield
        return
    ranks = LocalRanks(processes)
    try:
        store = _store(processes)
        ranks.start(store.port, work)
        _meet(store, processes, purpose, ranks.check)
        _connect(store, processes, backend, device)
        yield
        # Otherwise its threads sometimes abort the process when Python exits.
        dist.destroy_process_group()
        ranks.finish()
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, JobError):
            raise
        if lost := ranks.lost():
            raise lost from error
        raise
    finally:
        ranks.kill()


def _connect(store: Store, processes: Processes, backend: str, device: torch.device) -> None:
    """Form the process group.

    Raises:
        JobError: the processes cannot be connected.
    """
    variable = f"{backend.upper()}_SOCKET_IFNAME"
    former = os.environ.get(variable)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    local = processes.starter == "biloom" and processes.machines == 1
    if backend == "gloo" and local and loopback:
        # CPU processes of one machine must not depend on its network or on a variable that was left.
        os.environ[variable] = loopback[0]
    try:
        dist.init_process_group(
            backend,
            store=PrefixStore("training", store),
            rank=processes.rank,
            world_size=processes.world,
            device_id=device if device.type == "cuda" else None,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise JobError(
            f"the {processes.world} processes of this training cannot be connected ({reason}); set "
            f"{variable} to the network interface that connects the machines, or unset it"
        ) from error
    finally:
        if former is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = former


def _store(processes: Processes) -> TCPStore:
    """Return the store through which the processes meet.

    Raises:
        UserError: the address cannot be reached, or its port is in use.
    """
    # An agent of torchrun may serve the store itself.
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = processes.rank == 0 and not (processes.starter == "torchrun" and served)
    try:
        return TCPStore(
            processes.address,
            processes.port,
            processes.world,
            serves,
            timedelta(seconds=MEET_SECONDS),
            wait_for_workers=False,
        )
    except (dist.DistError, RuntimeError) as error:
        where = f"{processes.address}:{processes.port}"
        reason = str(error).splitlines()[0]
        doing = "be opened" if serves else "be reached"
        raise UserError(
            f"{where} (MASTER_ADDR and MASTER_PORT), where the {processes.world} processes of this "
            f"training meet, cannot {doing} ({reason}); set them to the machine of rank 0 and a free "
            "port there, and run the command on all machines"
        ) from error


def _meet(store: Store, processes: Processes, purpose: str, check: Callable[[], None]) -> None:
    """Wait until all processes have connected, and compare their purposes.

    Args:
        store: the store of the processes.
        processes: the processes.
        purpose: the purpose of this process.
        check: raises an error if a process has died.
    """
    # torchrun may start all processes again, with the same store.
    store = PrefixStore(f"biloom-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    store.set(str(processes.rank), purpose)
    end = time.monotonic() + MEET_SECONDS
    for rank in range(processes.world):
        while not store.check([str(rank)]):
            check()
            if time.monotonic() > end:
                raise UserError(
                    f"the process of rank {rank} of {processes.world} did not connect to "
                    f"{processes.address}:{processes.port} within {MEET_SECONDS:.0f} seconds; "
                    f"{_advice(processes)}"
                )
            time.sleep(POLL_SECONDS)
    ranks = range(processes.world)
    different = [rank for rank in ranks if store.get(str(rank)).decode() != purpose]
    store.set(f"{processes.rank} has compared", "")
    if different:
        # Rank 0 serves the store, so it must not end before the others have compared.
        end = time.monotonic() + COMPARE_SECONDS * (processes.rank == 0)
        compared = [f"{rank} has compared" for rank in ranks]
        while time.monotonic() < end and not store.check(compared):
            time.sleep(POLL_SECONDS)
        raise UserError(
            f"the processes of ranks {processes.rank} and {different[0]} of this training have different "
            "settings or inputs; run the same command everywhere, with the same run.output; if their "
            "devices differ, set train.precision instead of auto"
        )


def _advice(processes: Processes) -> str:
    names = {
        "torchrun": "TORCHELASTIC_RUN_ID, RANK and WORLD_SIZE",
        "srun": "SLURM_STEP_ID",
        "PyTorchJob": "RANK and WORLD_SIZE",
    }
    if processes.starter in names:
        return (
            f"if {processes.starter} did not start this command, unset {names[processes.starter]}"
        )
    return "run the same command on all machines, and check MASTER_ADDR, MASTER_PORT and NODE_RANK"
