"""Programs of several processes, which torchrun starts, or which start themselves."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from .errors import TaskError

_STORE = "DNI_STORE"  # environment variable: the folder by which ranks of one machine meet


def is_rank() -> bool:
    """Return whether torchrun has started this process as one of its ranks."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarts() -> int:
    """Return how often torchrun has started the ranks again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def launch(module: str, ranks: int, max_restarts: int, argv: Sequence[str]) -> int:
    """Run a module in several processes of this machine, as torchrun does.

    The ranks meet by files in a private folder, and no port is open but those of gloo on the
    loopback interface.

    Args:
        module: Name of the module.
        ranks: Number of processes.
        max_restarts: How often all ranks are started again where one has failed.
        argv: Options of the program.

    Returns:
        The exit status; a line on standard error names the rank that failed.
    """
    # The import takes seconds, and the ranks do without it.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch, LaunchConfig

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Otherwise torchrun listens on a port of all interfaces.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with tempfile.TemporaryDirectory(prefix="dni-ranks-") as folder:
        os.environ[_STORE] = folder
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id="dni",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / "launcher"),
            rdzv_configs={"store_type": "file"},
            max_restarts=max_restarts,
            monitor_interval=0.1,
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *argv)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            print(
                f"rank {rank} failed with exit code {failure.exitcode}, and all others were ended",
                file=sys.stderr,
            )
            # The status that the program itself ended with, such as 2 for a wrong option.
            return failure.exitcode if failure.exitcode > 0 else 1
        finally:
            del os.environ[_STORE]
    return 0


@contextmanager
def process_group(timeout: float, threads: int | None = None) -> Iterator[None]:
    """Join the process group in this scope, on gloo.

    Ranks of one machine communicate over the loopback interface, unless GLOO_SOCKET_IFNAME names
    another one.

    Args:
        timeout: The most seconds to wait for other ranks.
        threads: Number of threads of this process; None for OMP_NUM_THREADS, or 1.

    Raises:
        TaskError: torchrun has not started this process.
    """
    if not is_rank():
        raise TaskError("start this program by torchrun, or with --ranks N")
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", 1)))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, folder = None, os.environ.get(_STORE)
    if folder is not None:
        store = distributed.FileStore(str(Path(folder) / f"ranks-{restarts()}"), ranks)
    wait = timedelta(seconds=timeout)
    distributed.init_process_group("gloo", timeout=wait, store=store, rank=rank, world_size=ranks)
    yield
    # Where the scope is left by an error, others may not answer any more.
    distributed.barrier()
    distributed.destroy_process_group()


def _loopback() -> str:
    """Return the name of the loopback interface."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


class Parent:
    """The process that has started this one.

    A rank whose launcher was killed must not run on.
    """

    def __init__(self) -> None:
        self._number = os.getppid()

    def check(self) -> None:
        """Raise :class:`TaskError` where it has ended."""
        if os.getppid() != self._number:
            raise TaskError("the program that started this rank has ended")
