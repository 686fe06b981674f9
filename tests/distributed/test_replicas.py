"""Replicas of a part average their gradients, and refuse batches together."""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from pytorch_dni import DNIError, LocalLoss_DNI
from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches, run_ranks
from tests.support.ranks import run_processes

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)


def make_parts():
    torch.manual_seed(1)
    return [nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 3))]


def accuracy(output, target):
    return (output.argmax(1) == target).float().mean()


def work(rank, folder):
    results = {}
    for unlock in ("locked", "update"):
        data = batches(5, 4, 6, 3, seed=rank % 2)
        if unlock == "update" and rank == 1:
            data[3][0][0, 0] = torch.nan
        part = make_parts()[rank // 2]
        opt = torch.optim.SGD(part.parameters(), lr=0.1)
        options = {"unlock": unlock, "replicas": 2, "max_in_flight": 1}
        if unlock == "update":
            options.update(synthesizer=LocalLoss_DNI, context_size=3)
        stage = Stage(part, opt, loss=F.cross_entropy, example=data[0], **options)
        report = stage.train(data if rank < 2 else None)
        # Replicas may evaluate different numbers of batches.
        found = stage.evaluate(data[: 1 + rank] if rank < 2 else None, accuracy)
        results[unlock] = {
            "part": part.state_dict(),
            "samples": report.samples,
            "refused": report.refused,
            "accuracy": found,
        }
        stage.close()
    torch.save(results, f"{folder}/{rank}")


def test_replicas_train_together(tmp_path):
    run_processes(4, work, tmp_path)
    ranks = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(4)]
    for first, second in (ranks[:2], ranks[2:]):
        for unlock in ("locked", "update"):
            for name, value in first[unlock]["part"].items():
                assert torch.equal(value, second[unlock]["part"][name])
            assert first[unlock]["samples"] == 40
            assert 0 <= first[unlock]["accuracy"] <= 1
    assert ranks[0]["update"]["refused"] == [1, 1, 1, 1]

    alone = nn.Sequential(*make_parts())
    opt = torch.optim.SGD(alone.parameters(), lr=0.1)
    for (x, y), (v, w) in zip(batches(5, 4, 6, 3), batches(5, 4, 6, 3, seed=1), strict=True):
        opt.zero_grad()
        F.cross_entropy(alone(torch.cat([x, v])), torch.cat([y, w])).backward()
        opt.step()
    for part, rank in zip(alone, (0, 2), strict=True):
        for name, value in part.state_dict().items():
            torch.testing.assert_close(ranks[rank]["locked"]["part"][name], value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"replicas": 3}, "2 ranks cannot be divided into parts of 3 replicas"),
        ({"replicas": 2, "unlock": "backward"}, "take max_in_flight=1"),
    ],
)
def test_ranks_that_cannot_be_divided_are_refused(options, reason):
    def work(connection):
        part = nn.Linear(6, 6)
        opt = torch.optim.SGD(part.parameters(), lr=0.1)
        Stage(part, opt, loss=F.cross_entropy, connection=connection, **options)

    with pytest.raises(DNIError, match=reason):
        run_ranks(2, work)
