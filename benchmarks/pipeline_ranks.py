"""What each rank runs in the benchmark of pipelines: stages, and the schedules of PyTorch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F

from pytorch_dni import LocalLoss_DNI
from pytorch_dni.distributed import Connection, Stage

from .slow_links import slow_point_to_point, SlowTransport

CLASSES = 10
SCHEDULES = {
    "GPipe": "ScheduleGPipe",
    "1F1B": "Schedule1F1B",
    "interleaved 1F1B": "ScheduleInterleaved1F1B",
    "zero bubble": "ScheduleInterleavedZeroBubble",
}
_SEVERAL_STAGES = ("interleaved 1F1B", "zero bubble")


class Sizes(NamedTuple):
    """The network and the measurement.

    Attributes:
        width: Width of the layers.
        blocks: Number of blocks, each a linear layer and an activation function.
        batch: Samples in a batch.
        steps: Batches in one measurement.
        rounds: Measurements of each row, in turn.
    """

    width: int = 512
    blocks: int = 8
    batch: int = 256
    steps: int = 40
    rounds: int = 3


class Row(NamedTuple):
    """What is measured.

    Attributes:
        way: ``"decoupled"``, ``"locked"``, or a schedule.
        micro_batches: Number of micro-batches of a schedule.
        latency: Seconds that each message takes longer.
    """

    way: str
    micro_batches: int
    latency: float


def make_parts(sizes: Sizes, count: int) -> list[nn.Sequential]:
    """Return parts of equal cost; the last one computes the logits."""
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.ReLU()) for _ in range(sizes.blocks)
    ]
    each = sizes.blocks // count
    parts = [nn.Sequential(*blocks[i * each : (i + 1) * each]) for i in range(count)]
    parts[-1].append(nn.Linear(sizes.width, CLASSES))
    return parts


def make_batch(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return a batch of random data."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (sizes.batch,), generator=draw)
    return torch.randn(sizes.batch, sizes.width, generator=draw), labels


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that all ways have."""
    return torch.optim.Adam(module.parameters(), lr=1e-5)


def single_process(sizes: Sizes) -> float:
    """Return the samples per second of backpropagation in one process."""
    network = nn.Sequential(*make_parts(sizes, 1))
    opt, (x, y) = optimizer(network), make_batch(sizes)

    def step() -> None:
        opt.zero_grad()
        F.cross_entropy(network(x), y).backward()
        opt.step()

    step()
    start = time.perf_counter()
    for _ in range(sizes.steps):
        step()
    return sizes.steps * sizes.batch / (time.perf_counter() - start)


def stage_run(rank: int, sizes: Sizes, row: Row, in_flight: int) -> Callable[[], None]:
    """Return a function that trains a pipeline of stages for the steps of one measurement."""
    part = make_parts(sizes, distributed.get_world_size())[rank]
    batch = make_batch(sizes)
    own = Connection.of_process_group()
    if row.latency:
        own = own._replace(transport=SlowTransport(own.transport, row.latency))
    stage = Stage(
        part,
        optimizer(part),
        loss=F.cross_entropy,
        example=batch,
        unlock="locked" if row.way == "locked" else "update",
        synthesizer=None if row.way == "locked" else LocalLoss_DNI,
        context_size=CLASSES,
        max_in_flight=in_flight,
        connection=own,
    )
    return lambda: _train(stage, [batch] * sizes.steps)


def _train(stage: Stage, batches: list[tuple[Tensor, Tensor]]) -> None:
    stage.train(batches if stage.place.is_first else None)


def schedule_run(rank: int, sizes: Sizes, row: Row) -> Callable[[], None]:
    """Return a function that trains by a schedule of ``torch.distributed.pipelining``."""
    from torch.distributed import pipelining

    ranks = distributed.get_world_size()
    several = row.way in _SEVERAL_STAGES
    count = 2 * ranks if several else ranks
    parts = make_parts(sizes, count)
    device = torch.device("cpu")
    stages = [
        pipelining.PipelineStage(parts[i], i, count, device) for i in range(rank, count, ranks)
    ]
    make: Any = getattr(pipelining, SCHEDULES[row.way])
    given = stages if several else stages[0]
    schedule = make(given, row.micro_batches, loss_fn=F.cross_entropy)
    own = nn.ModuleList(parts[i] for i in range(rank, count, ranks))
    opt, (x, y) = optimizer(own), make_batch(sizes)

    def step() -> None:
        opt.zero_grad()
        given = [x] if rank == 0 else []
        schedule.step(*given, **({"target": y} if rank == ranks - 1 else {}))
        opt.step()

    def run() -> None:
        with slow_point_to_point(row.latency):
            for _ in range(sizes.steps):
                step()

    step()
    return run


def measure(rank: int, ranks: int, folder: str, sizes: Sizes, rows: list[Row]) -> None:
    """In each rank, measure all rows in turn; the first rank writes samples per second."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    init = f"file://{folder}/meet-{ranks}"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=ranks)
    found: list[list[float]] = [[] for _ in rows]
    runs = []
    for row in rows:
        # As many batches as pass while a message is on its way, at 100 batches a second.
        in_flight = 2 + round(2 * row.latency * 100)
        is_stage = row.way in ("decoupled", "locked")
        runs.append(
            stage_run(rank, sizes, row, in_flight) if is_stage else schedule_run(rank, sizes, row)
        )
    for _ in range(sizes.rounds):
        for times, run in zip(found, runs, strict=True):
            distributed.barrier()
            start = time.perf_counter()
            run()
            distributed.barrier()
            times.append(sizes.steps * sizes.batch / (time.perf_counter() - start))
    if rank == 0:
        torch.save(found, f"{folder}/found-{ranks}")
    distributed.barrier()
    # Ended at once: stages of some rows have receives under way, for which nobody sends.
    os._exit(0)
