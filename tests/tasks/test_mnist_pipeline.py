"""The pipeline on MNIST: resumed, killed and restarted, it ends as one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import distributed

from pytorch_dni.distributed import latest_checkpoint
from tasks import mnist_pipeline, pipeline_run
from tests.support.digits import write_digits
from tests.support.ranks import RankProcesses

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available() or not Path("/proc/self/task").exists(),
    reason="needs gloo, and the processes of Linux",
)
SMALL = ["--hidden", "8", "--batch", "16", "--every", "4", "--timeout", "20", "--synthesizer"]
SMALL += ["local-error", "--lr", "1e-2"]


def start(data, out, *options):
    argv = [*SMALL, "--data", data, "--out", out, *options]
    command = [sys.executable, "-m", "tasks.mnist_pipeline", *map(str, argv)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process, status=0):
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return printed, errors


def children(process):
    """Return the processes of ranks, by their rank."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for number in map(int, task.read_text().split()):
            try:
                environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ranks = [line[5:] for line in environment if line.startswith(b"RANK=")]
            if ranks:
                found[int(ranks[0])] = number
    return found


def wait_for_checkpoint(out, batches, timeout=60):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        newest = latest_checkpoint(out) if out.exists() else None
        if newest is not None and int(newest.name.removeprefix("batch-")) >= batches:
            return
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of batch {batches} came")


def network(out):
    return torch.load(out / pipeline_run.NETWORK, weights_only=True)


def is_running(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Runs:
    """Runs of the task in processes that begin at once."""

    def __init__(self, folder, data, ranks=2):
        self._folder, self._ranks = folder, ranks
        self._argv = [*SMALL, "--data", data]

    def start(self, out, *options, restarts=0):
        argv = [*self._argv, "--out", out, *options]
        main = mnist_pipeline.main
        return RankProcesses(self._ranks, main, argv, self._folder, restarts)

    def finish(self, out, *options, restarts=0):
        codes, printed = self.start(out, *options, restarts=restarts).finish()
        assert codes == [0] * self._ranks, printed
        return printed


def rows_of(out):
    lines = (out / pipeline_run.METRICS).read_text().splitlines()
    return [(row["step"], row["test"]) for row in map(json.loads, lines)]


def kill_and_restart(runs, out, options, moments):
    """Kill a rank at each moment, given as ``(rank, batches or seconds)``, and start all again."""
    for restart, (rank, moment) in enumerate(moments):
        running = runs.start(out, *options, restarts=restart)
        if isinstance(moment, int):
            wait_for_checkpoint(out, moment)
        else:
            time.sleep(moment)
        running.processes[rank].kill()
        running.finish()
    runs.finish(out, *options, restarts=len(moments))


def test_a_run_that_is_killed_and_restarted_ends_as_one_that_was_not(tmp_path):
    runs = Runs(tmp_path, write_digits(tmp_path))
    whole, killed, halves = tmp_path / "whole", tmp_path / "killed", tmp_path / "halves"
    options = ["--epochs", "8"]
    runs.finish(whole, *options)
    kill_and_restart(runs, killed, options, [(1, 4), (0, 12), (0, 0.5)])
    runs.finish(halves, "--epochs", "4")
    codes, printed = runs.start(halves, *options).finish()
    assert 0 not in codes
    assert any("continue it with --resume" in text for text in printed)
    runs.finish(halves, *options, "--resume")
    for out in (killed, halves):
        torch.testing.assert_close(network(out), network(whole), rtol=0, atol=0)
        assert rows_of(out) == rows_of(whole)
    assert [batches for batches, _ in rows_of(whole)] == [*range(4, 33, 4)]
    assert rows_of(whole)[-1][1] < 0.7


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_is_named_by_all_others_in_bounded_time(ending, tmp_path):
    runs, out = Runs(tmp_path, write_digits(tmp_path), 4), tmp_path / "run"
    running = runs.start(out, "--epochs", "2000", "--timeout", "8")
    wait_for_checkpoint(out, 4)
    lost, *others = (running.processes[rank] for rank in (2, 0, 1, 3))
    os.kill(lost.pid, ending)
    start = time.monotonic()
    for process in others:
        process.join(60)
    assert time.monotonic() - start < 40
    lost.kill()
    codes, printed = running.finish()
    assert [codes[rank] for rank in (0, 1, 3)] == [2, 2, 2], printed
    for rank in (0, 1, 3):
        assert f"rank {rank}: rank 2 is lost" in printed[rank], printed[rank]


@pytest.mark.long
def test_torchrun_restarts_ranks_that_are_killed(tmp_path):
    data, out = write_digits(tmp_path), tmp_path / "run"
    process = start(data, out, "--ranks", "2", "--epochs", "40", "--max-restarts", "1")
    ranks = []
    for rank in (1, 0):
        newest = latest_checkpoint(out) if ranks else None
        done = int(newest.name.removeprefix("batch-")) if newest else 0
        wait_for_checkpoint(out, done + 3)
        running = children(process)
        assert sorted(running) == [0, 1]
        ranks += running.values()
        os.kill(running[rank], signal.SIGKILL)
        while rank == 1 and children(process).get(0) in ranks:
            time.sleep(0.01)
    # The second kill is one too many.
    _, errors = finish(process, status=1)
    assert "rank 0 failed with exit code -9, and all others were ended" in errors
    assert len(ranks) == 4
    assert not any(is_running(number) for number in ranks)


def test_data_that_is_missing_is_one_line_of_error(tmp_path):
    codes, printed = Runs(tmp_path, tmp_path).start(tmp_path / "run").finish()
    assert codes == [2, 2]
    (line,) = printed[0].splitlines()
    assert line.startswith("python -m tasks.mnist_pipeline: error: no MNIST in --data")
    assert not printed[1]


def test_the_program_needs_ranks(capsys):
    with pytest.raises(SystemExit, match="2"):
        mnist_pipeline.main(["--ranks", "0"])
    assert "--ranks" in capsys.readouterr().err


@pytest.mark.long
def test_fifty_kills_at_random_moments(tmp_path):
    runs, draw = Runs(tmp_path, write_digits(tmp_path)), random.Random(0)
    whole, options = tmp_path / "whole", ["--epochs", "8"]
    start_of_run = time.monotonic()
    runs.finish(whole, *options)
    duration = time.monotonic() - start_of_run
    for number in range(10):
        out = tmp_path / str(number)
        moments = [(draw.randrange(2), draw.uniform(0.05, 0.9) * duration) for _ in range(5)]
        kill_and_restart(runs, out, options, moments)
        torch.testing.assert_close(network(out), network(whole), rtol=0, atol=0)
        assert rows_of(out) == rows_of(whole)
