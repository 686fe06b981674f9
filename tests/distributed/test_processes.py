"""Pipelines of processes on gloo do the same as those in memory."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from pytorch_dni import LocalLoss_DNI
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


def work(rank, folder):
    data = batches(10, 8, 6, 3, last=5)
    results = {"locked": lock(rank, data)}
    results["unlocked"] = [unlocked(rank, data, in_flight) for in_flight in (1, 1, 3)]
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
