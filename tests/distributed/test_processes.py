"""Pipelines of processes on gloo do the same as those in memory."""

import copy
import time

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from pytorch_dni import Linear_DNI, LocalLoss_DNI
from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches
from tests.support.ranks import run_processes

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)


def make_parts():
    torch.manual_seed(1)
    return [nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh()), nn.Linear(8, 3)]


def accuracy(output, target):
    return (output.argmax(1) == target).float().mean()


def lock(rank, data):
    part = make_parts()[rank]
    opt = torch.optim.Adam(part.parameters(), lr=1e-2)
    stage = Stage(part, opt, loss=F.cross_entropy, example=data[0], unlock="locked")
    report = stage.train(data if rank == 0 else None)
    found = stage.evaluate(data if rank == 0 else None, accuracy)
    stage.close()
    return {"part": part.state_dict(), "loss": report.loss, "accuracy": found}


def unlocked(rank, data, in_flight):
    part = make_parts()[rank]
    opt = torch.optim.Adam(part.parameters(), lr=1e-2)
    options = {"synthesizer": LocalLoss_DNI, "context_size": 3, "max_in_flight": in_flight}
    stage = Stage(part, opt, loss=F.cross_entropy, example=data[0], **options)
    # Parts of the loader, until it has ended.
    source, reports = iter(data), []
    while not reports or not reports[-1].ended:
        reports.append(stage.train(source if rank == 0 else None, limit=4))
    assert stage.batches == len(data)
    stage.close()
    return {"part": part.state_dict(), "batches": [report.batches for report in reports]}


class Slow(nn.Module):
    """A part that takes a while, and notes when it has run."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.times = inner, []

    def forward(self, x):
        time.sleep(0.02)
        self.times.append(time.monotonic())
        return self.inner(x)


def held_back(rank, data, synthesizer):
    """Return when the first part took its batches, or when the second one had run."""
    part, taken = make_parts()[rank], []

    def noted():
        for batch in data:
            taken.append(time.monotonic())
            yield batch

    opt = torch.optim.Adam(part.parameters(), lr=1e-2)
    options = {"synthesizer": synthesizer, "context_size": 3, "max_in_flight": 1}
    module = Slow(part) if rank else part
    stage = Stage(module, opt, loss=F.cross_entropy, example=data[0], **options)
    stage.train(noted() if rank == 0 else None)
    stage.close()
    return module.times[1:] if rank else taken  # without the run of the example


def work(rank, folder):
    data = batches(10, 8, 6, 3, last=5)
    results = {"locked": lock(rank, data)}
    results["unlocked"] = [unlocked(rank, data, in_flight) for in_flight in (1, 1, 3)]
    more = batches(25, 8, 6, 3)
    results["held back"] = [held_back(rank, more, kind) for kind in (LocalLoss_DNI, Linear_DNI)]
    torch.save(results, f"{folder}/{rank}")


def test_training_and_evaluation_in_two_processes(tmp_path):
    run_processes(2, work, tmp_path)
    ranks = [torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1)]
    data = batches(10, 8, 6, 3, last=5)
    alone = nn.Sequential(*copy.deepcopy(make_parts()))
    opt = torch.optim.Adam(alone.parameters(), lr=1e-2)
    for x, y in data:
        opt.zero_grad()
        F.cross_entropy(alone(x), y).backward()
        opt.step()
    for number, part in enumerate(alone):
        for name, value in part.state_dict().items():
            torch.testing.assert_close(ranks[number]["locked"]["part"][name], value)
    alone.eval()
    right = sum((alone(x).argmax(1) == y).sum().item() for x, y in data)
    for rank in ranks:
        assert rank["locked"]["accuracy"] == pytest.approx(right / 77, abs=1e-4)
        first, again, _ = rank["unlocked"]
        assert first["batches"] == [4, 4, 2]
        for name, value in first["part"].items():
            assert torch.equal(value, again["part"][name])
    # Without a gradient that comes back, three receives and three sends are under way.
    for most, taken, ended in zip((8, 2), *(r["held back"] for r in ranks), strict=True):
        assert len(taken) == len(ended) == 25
        ahead = [number - sum(end <= time for end in ended) for number, time in enumerate(taken, 1)]
        assert 1 <= max(ahead) <= most
