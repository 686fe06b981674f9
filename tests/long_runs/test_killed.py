"""A task that is killed at random moments: resumed, it ends as one that was never stopped."""

import contextlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

from tasks import copy_task, output_folder
from tests.support.programs import assert_equal_results

SMALL = ["--batch", "4", "--hidden", "8", "--length", "2", "--device", "cpu", "--every", "2"]
SMALL += ["--mode", "feedback,cdni"]
STEPS = 8


def work(options):
    """Run the task without output; in a process of its own."""
    import torch

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = copy_task.main([*options, "--steps", str(STEPS)])
    os._exit(status or 0)


class Runs:
    """Starts the task in processes of a server that has imported it already."""

    def __init__(self):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def start(self, folder):
        resumes = (folder / output_folder.CHECKPOINT).exists()
        options = ["--resume", "--device", "cpu"] if resumes else SMALL
        process = self._context.Process(target=work, args=([*options, "--out", str(folder)],))
        process.start()
        return process

    def finish(self, folder):
        process = self.start(folder)
        process.join()
        assert process.exitcode == 0


def assert_complete(folder, whole):
    assert_equal_results(folder, whole)
    names = {path.name for path in folder.iterdir()}
    assert names == {output_folder.METRICS, output_folder.CHECKPOINT, output_folder.CURVES}
    lines = [len((f / output_folder.METRICS).read_text().splitlines()) for f in (folder, whole)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
def test_a_task_that_is_killed_again_and_again_ends_as_one_that_was_not(kills, tmp_path):
    runs, draw, whole = Runs(), random.Random(0), tmp_path / "whole"
    runs.finish(tmp_path / "first")  # This starts the server.
    start = time.monotonic()
    runs.finish(whole)
    duration = time.monotonic() - start
    folder, killed = tmp_path / "0", 0
    while killed < kills:
        process = runs.start(folder)
        time.sleep(draw.uniform(0.1, 0.7) * duration)
        process.kill()
        process.join()
        if process.exitcode == 0:  # It had ended before; another run begins.
            assert_complete(folder, whole)
            shutil.rmtree(folder)
        killed += process.exitcode == -signal.SIGKILL
    runs.finish(folder)
    assert_complete(folder, whole)


def test_a_run_that_was_killed_after_its_last_checkpoint_writes_the_other_files(tmp_path):
    runs, folder, whole = Runs(), tmp_path / "killed", tmp_path / "whole"
    runs.finish(whole)
    shutil.copytree(whole, folder)
    (folder / output_folder.METRICS).unlink()
    (folder / output_folder.CURVES).unlink()
    (folder / f".{output_folder.CHECKPOINT}.partial").write_bytes(b"cut off")
    runs.finish(folder)
    assert_complete(folder, whole)
