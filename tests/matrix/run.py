"""Runs the check of a row: here, or in the processes of a process group."""

from __future__ import annotations

import gc
import os
import warnings
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from tests.matrix.check import check
from tests.matrix.row import Row


def run(row: Row, way: str, folder: Path) -> None:
    """Raise where a row does something else than is expected on a way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries warn of what a row does on purpose
        if row.ranks == 1:
            check(row, way, folder)
        else:
            # A server that has imported the rows starts the processes; importing takes seconds.
            get_context("forkserver").set_forkserver_preload(["tests.matrix.rows"])
            arguments = row.ranks, row.name, way, str(folder)
            multiprocessing.start_processes(_work, arguments, row.ranks, start_method="forkserver")


def _work(rank: int, ranks: int, name: str, way: str, folder: str) -> None:
    from tests.matrix.rows import by_name

    # The processes communicate over the loopback interface alone.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    own = Path(folder) / str(rank)
    own.mkdir()
    check(by_name()[name], way, own)
    # A rank may abort if it ends while the other one still communicates, or while it holds the
    # group.
    gc.collect()
    distributed.barrier()
    distributed.destroy_process_group()
