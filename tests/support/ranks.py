"""Pipelines of real processes, which communicate by gloo over the loopback interface."""

import os
import tempfile
from multiprocessing import get_context

import torch
from torch import distributed, multiprocessing


def run_processes(count, work, folder):
    """Call ``work(rank, folder)`` in a process for each rank, in a process group."""
    # Processes of a server that has imported everything begin at once.
    get_context("forkserver").set_forkserver_preload(["pytorch_dni.distributed"])
    meet = tempfile.mkdtemp(dir=folder)
    multiprocessing.start_processes(
        _work, (count, work, str(folder), meet), nprocs=count, start_method="forkserver"
    )


def _work(rank, count, work, folder, meet):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    init = f"file://{meet}/meet"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=count)
    work(rank, folder)
    distributed.barrier()
    distributed.destroy_process_group()
