"""Pipelines of real processes, which communicate by gloo over the loopback interface."""

import os

import torch
from torch import distributed, multiprocessing


def run_processes(count, work, folder):
    """Call ``work(rank, folder)`` in a process for each rank, in a process group."""
    multiprocessing.spawn(_work, (count, work, str(folder)), nprocs=count)


def _work(rank, count, work, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    init = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=count)
    work(rank, folder)
    distributed.barrier()
    distributed.destroy_process_group()
