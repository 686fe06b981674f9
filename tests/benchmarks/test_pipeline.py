"""The benchmark of pipelines, its simulation, and the slow links."""

import time

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from benchmarks import pipeline
from benchmarks.pipeline_ranks import Sizes
from benchmarks.pipeline_simulation import (
    decoupled,
    forecast,
    gpipe_order,
    one_forward_one_backward_order,
    scheduled,
    simulate,
    Times,
)
from benchmarks.slow_links import SlowTransport
from pytorch_dni import LocalLoss_DNI
from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches, run_ranks

TIMES = Times(1.0, 2.0, 0.0, 0.0)


def test_one_stage_is_never_idle():
    assert simulate(decoupled(1, 5, 2, 9.0, TIMES)) == (15, 0, 1)
    assert simulate(scheduled(1, 5, 1, 9.0, TIMES, gpipe_order)) == (15, 0, 1)


@pytest.mark.parametrize("stages", [2, 5])
@pytest.mark.parametrize("micro_batches", [2, 8])
def test_the_bubble_of_both_schedules_is_that_of_their_papers(stages, micro_batches):
    """``(stages - 1) / (micro_batches + stages - 1)``, where messages take no time."""
    expected = (stages - 1) / (micro_batches + stages - 1)
    for order in (gpipe_order, one_forward_one_backward_order):
        outcome = simulate(scheduled(stages, 1, micro_batches, 0.0, TIMES, order))
        assert outcome.bubble == pytest.approx(expected)
    memory = simulate(
        scheduled(stages, 1, micro_batches, 0.0, TIMES, one_forward_one_backward_order)
    ).memory
    assert memory == pytest.approx(min(stages, micro_batches) / micro_batches)


def test_without_decoupling_latency_is_paid_on_both_ways():
    outcome = simulate(scheduled(2, 3, 1, 0.5, TIMES, gpipe_order))
    assert outcome.seconds == pytest.approx(3 * (2 * 3 + 2 * 0.5))


@pytest.mark.parametrize("stages", [2, 64])
def test_decoupled_parts_hide_latency_with_enough_batches_in_flight(stages):
    for latency in (0.0, 7.0):
        way = forecast(stages, latency, TIMES, 4)[0]
        assert way.batches_per_second == pytest.approx(1 / 3)
        assert way.bubble == pytest.approx(0)
    # With one batch in flight, a part waits for the next one's update and for both messages.
    runs = [simulate(decoupled(2, n, 1, 7.0, TIMES)).seconds for n in (5, 6)]
    assert runs[1] - runs[0] == pytest.approx(1 + 7 + 3 + 7)


def test_slow_links_delay_and_change_nothing_else():
    data = batches(6, 8, 6, 3)
    results = []
    for seconds in (0.0, 0.02):
        torch.manual_seed(0)
        parts = [nn.Linear(6, 8), nn.Linear(8, 3)]

        def work(connection, seconds=seconds, parts=parts):
            part = parts[connection.rank]
            slow = SlowTransport(connection.transport, seconds, jitter=0.5)
            stage = Stage(
                part,
                torch.optim.SGD(part.parameters(), lr=0.1),
                loss=F.cross_entropy,
                example=data[0],
                synthesizer=LocalLoss_DNI,
                context_size=3,
                max_in_flight=8,
                connection=connection._replace(transport=slow),
            )
            start = time.perf_counter()
            stage.train(data)
            seconds = time.perf_counter() - start
            stage.close()
            return [p.detach() for p in part.parameters()], seconds

        results.append(run_ranks(2, work))
    for (fast, _), (slow, seconds) in zip(*results, strict=True):
        assert all(map(torch.equal, fast, slow))
        # Latency is hidden: one message's, not that of each batch.
        assert 0.02 <= seconds < 6 * 0.02 + 0.2


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_it_measures_all_ways():
    sizes = Sizes(width=8, blocks=8, batch=16, steps=1, rounds=1)
    table, figures = pipeline.run("cpu", sizes, (0.0, 0.002), (2, 4))
    assert "zero bubble" in table
    for rows in figures["ranks"].values():
        assert len(rows) == 2 * 6 + 4
        assert all(row["samples_per_second"] > 0 for row in rows)
    assert len(figures["simulation"]) == 2 * 2 * 3
    assert pipeline.plot(figures).startswith(b"\x89PNG")


def test_the_calibration_finds_the_times_that_a_simulation_was_made_with():
    sizes, times = Sizes(batch=100), Times(0.1, 0.2, 0.03, 0.0)

    def row(way, micro_batches, seconds):
        speed = sizes.batch / seconds
        found = {"way": way, "micro_batches": micro_batches, "latency": 0.0}
        return {**found, "samples_per_second": speed}

    rows = [row("decoupled", 0, 0.33)]
    for m in (2, 4, 8):
        runs = [
            simulate(scheduled(2, n, m, 0.0, times._replace(piece=0.01), gpipe_order)).seconds
            for n in (1, 2)
        ]
        rows.append(row("GPipe", m, runs[1] - runs[0]))
    found = pipeline.calibrated(sizes.batch / 0.6, rows, sizes)
    assert found[:3] == pytest.approx(times[:3])
    # The bubble of a schedule holds passes too, which the calibration leaves out.
    assert found.piece == pytest.approx(0.01, rel=0.3)
