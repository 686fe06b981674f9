"""Pipelines of real processes, which communicate by gloo over the loopback interface."""

import os
import tempfile
import traceback
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import distributed, multiprocessing

PRELOADED = [
    "pytorch_dni.distributed",
    "tasks.language_pipeline",
    "tasks.mnist_pipeline",
    "tasks.torchvision_import",
    "tasks.two_clocks",
]


def run_processes(count, work, folder):
    """Call ``work(rank, folder)`` in a process for each rank, in a process group."""
    # Processes of a server that has imported everything begin at once.
    get_context("forkserver").set_forkserver_preload(PRELOADED)
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


class RankProcesses:
    """Processes that run a program as the ranks which torchrun starts, without torchrun.

    Args:
        count: Number of ranks.
        main: The ``main`` of the program.
        argv: Its options.
        folder: A folder for the files by which they meet, and for what they print.
        restarts: How often torchrun would have started them before.
    """

    def __init__(self, count, main, argv, folder, restarts=0):
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.mkdtemp(dir=folder)
        variables = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        variables |= {"DNI_STORE": self._folder, "TORCHELASTIC_RESTART_COUNT": str(restarts)}
        argv = [*map(str, argv)]
        self.processes = []
        for rank in range(count):
            own = {**variables, "RANK": str(rank), "OMP_NUM_THREADS": "1"}
            process = context.Process(target=_run, args=(main, argv, own, self.errors_of(rank)))
            process.start()
            self.processes.append(process)

    def errors_of(self, rank):
        """Return the file with what a rank prints."""
        return f"{self._folder}/printed-{rank}"

    def finish(self, timeout=300):
        """Wait for all ranks; return their exit codes and what they printed."""
        for process in self.processes:
            process.join(timeout)
            assert process.exitcode is not None, "a rank hangs"
        ranks = range(len(self.processes))
        files = [Path(self.errors_of(rank)) for rank in ranks]
        # A rank that was killed at once has not opened its file.
        printed = [file.read_text() if file.exists() else "" for file in files]
        return [process.exitcode for process in self.processes], printed


def _run(main, argv, variables, printed):
    os.environ.update(variables)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        status = main(argv)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status or 0)
