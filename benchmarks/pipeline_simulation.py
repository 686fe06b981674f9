"""Discrete-event simulation of pipelines with more stages and slower links than there are here."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Times(NamedTuple):
    """Measured times, which calibrate the simulation.

    Attributes:
        forward: Seconds of the forward pass of one part, for a whole batch.
        backward: Seconds of its backward pass and its update.
        message: Seconds that a decoupled part needs for the messages of a batch.
        piece: Seconds that a schedule needs for each pass of a micro-batch, besides its share of
            the batch: for its messages, and since small products are slower.
    """

    forward: float
    backward: float
    message: float
    piece: float


class Need(NamedTuple):
    """What a piece of work waits for.

    Attributes:
        stage: A stage.
        piece: The number of a piece of its work.
        delay: Seconds after the end of that piece.
    """

    stage: int
    piece: int
    delay: float


class Piece(NamedTuple):
    """A piece of work of a stage; the pieces of a stage run in their order.

    Attributes:
        seconds: How long it takes.
        needs: What it waits for.
        keeps: Change of the number of batches whose activations the stage keeps.
    """

    seconds: float
    needs: tuple[Need, ...]
    keeps: float


class Outcome(NamedTuple):
    """What a simulation gives.

    Attributes:
        seconds: When the last piece ends.
        bubble: Share of time in which stages do nothing.
        memory: Most batches whose activations a stage keeps.
    """

    seconds: float
    bubble: float
    memory: float


def simulate(work: Sequence[Sequence[Piece]]) -> Outcome:
    """Run the pieces of all stages, each as soon as its stage and what it needs are ready.

    Args:
        work: Pieces by stage.
    """
    position = [0] * len(work)
    ends: list[list[float]] = [[] for _ in work]
    waiting: dict[tuple[int, int], list[int]] = {}
    kept, most = [0.0] * len(work), 0.0
    events: list[tuple[float, int]] = [(0.0, stage) for stage in range(len(work))]
    while events:
        now, stage = heapq.heappop(events)
        if position[stage] == len(work[stage]):
            continue
        piece = work[stage][position[stage]]
        start, missing = now, None
        for need in piece.needs:
            if len(ends[need.stage]) <= need.piece:
                missing = need
                break
            start = max(start, ends[need.stage][need.piece] + need.delay)
        if missing is not None:
            waiting.setdefault((missing.stage, missing.piece), []).append(stage)
            continue
        if start > now:
            heapq.heappush(events, (start, stage))
            continue
        kept[stage] += piece.keeps
        most = max(most, kept[stage])
        end = now + piece.seconds
        ends[stage].append(end)
        for other in waiting.pop((stage, position[stage]), []):
            heapq.heappush(events, (end, other))
        position[stage] += 1
        heapq.heappush(events, (end, stage))
    total = max(pieces[-1] for pieces in ends)
    busy = sum(piece.seconds for pieces in work for piece in pieces)
    return Outcome(total, 1 - busy / (total * len(work)), most)


def decoupled(
    stages: int, batches: int, in_flight: int, latency: float, times: Times
) -> list[list[Piece]]:
    """Return the work of stages that learn as soon as they have run."""
    work: list[list[Piece]] = []
    for stage in range(stages):
        pieces = []
        for batch in range(batches):
            needs = []
            if stage:
                needs.append(Need(stage - 1, 2 * batch, latency))
            if stage + 1 < stages and batch >= in_flight:
                needs.append(Need(stage + 1, 2 * (batch - in_flight) + 1, latency))
            pieces.append(Piece(times.forward + times.message, (*needs,), 1))
            pieces.append(Piece(times.backward, (), -1))
        work.append(pieces)
    return work


def scheduled(
    stages: int,
    steps: int,
    micro_batches: int,
    latency: float,
    times: Times,
    order: Callable[[int, int, int], list[tuple[bool, int]]],
) -> list[list[Piece]]:
    """Return the work of stages that wait for true gradients.

    Args:
        stages: Number of stages.
        steps: Number of batches.
        micro_batches: Number of micro-batches in each.
        latency: Seconds of a message.
        times: Times for a whole batch.
        order: Returns the order of a stage: whether it is a forward pass, and of which micro-batch.
    """
    orders = [order(stage, stages, micro_batches) for stage in range(stages)]
    places = [{work: i for i, work in enumerate(own)} for own in orders]
    forward = times.forward / micro_batches + times.piece
    backward = times.backward / micro_batches + times.piece
    work: list[list[Piece]] = []
    for stage, own in enumerate(orders):
        pieces = []
        for step in range(steps):
            before = step * len(own)
            for is_forward, micro_batch in own:
                other = stage - 1 if is_forward else stage + 1
                needs = []
                if 0 <= other < stages:
                    piece = before + places[other][is_forward, micro_batch]
                    needs.append(Need(other, piece, latency))
                keeps = (1 if is_forward else -1) / micro_batches
                pieces.append(Piece(forward if is_forward else backward, (*needs,), keeps))
        work.append(pieces)
    return work


def gpipe_order(stage: int, stages: int, micro_batches: int) -> list[tuple[bool, int]]:
    """Return all forward passes, then all backward passes."""
    forward = [(True, i) for i in range(micro_batches)]
    return forward + [(False, i) for i in range(micro_batches)]


def one_forward_one_backward_order(
    stage: int, stages: int, micro_batches: int
) -> list[tuple[bool, int]]:
    """Return forward passes until the first gradient can come, then one of each in turn."""
    ahead = min(stages - stage, micro_batches)
    order = [(True, i) for i in range(ahead)]
    for i in range(micro_batches):
        order.append((False, i))
        if ahead + i < micro_batches:
            order.append((True, ahead + i))
    return order


class Forecast(NamedTuple):
    """The simulation of one way.

    Attributes:
        stages: Number of stages.
        latency: Seconds of a message.
        way: What is simulated.
        batches_per_second: Throughput.
        bubble: Share of time in which stages do nothing.
        memory: Most batches whose activations a stage keeps.
        staleness: Batches after which a synthesizer learns from a true gradient.
    """

    stages: int
    latency: float
    way: str
    batches_per_second: float
    bubble: float
    memory: float
    staleness: int


def forecast(stages: int, latency: float, times: Times, micro_batches: int) -> list[Forecast]:
    """Simulate decoupled parts and both schedules, where each part does the same work."""
    step = times.forward + times.backward + times.message
    in_flight = 2 + math.ceil(2 * latency / step)
    # Two lengths: the difference is free of the time until the last stage has its first batch.
    short, long = in_flight + 4, 2 * in_flight + 24
    found = []
    runs = [simulate(decoupled(stages, n, in_flight, latency, times)) for n in (short, long)]
    speed = (long - short) / (runs[1].seconds - runs[0].seconds)
    bubble = 1 - speed * step
    memory = runs[1].memory
    found.append(Forecast(stages, latency, "decoupled", speed, bubble, memory, in_flight))
    orders = {"GPipe": gpipe_order, "1F1B": one_forward_one_backward_order}
    for way, order in orders.items():
        pair = [
            simulate(scheduled(stages, n, micro_batches, latency, times, order)) for n in (1, 2)
        ]
        speed = 1 / (pair[1].seconds - pair[0].seconds)
        found.append(Forecast(stages, latency, way, speed, pair[1].bubble, pair[1].memory, 0))
    return found
