"""The full unlock: a part without an input learns from synthesised ones."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNIError, LocalLoss_DNI
from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches, run_ranks


def make_parts():
    torch.manual_seed(1)
    sizes = [(6, 16), (16, 16)]
    return [*(nn.Sequential(nn.Linear(*size), nn.Tanh()) for size in sizes), nn.Linear(16, 3)]


def pauses(data, seconds):
    for batch in data:
        time.sleep(seconds)
        yield batch


def train(parts, data, patience, pause, **options):
    def work(connection):
        part = parts[connection.rank]
        stage = Stage(
            part,
            torch.optim.SGD(part.parameters(), lr=0.1),
            loss=F.cross_entropy,
            example=data[0],
            unlock="full",
            synthesizer=LocalLoss_DNI,
            context_size=3,
            patience=patience,
            connection=connection,
            **options,
        )
        reports = [stage.train(pauses(data, pause)) for _ in range(2)]
        accuracy = stage.evaluate(data, lambda o, y: (o.argmax(1) == y).float().mean())
        stage.close()
        return stage, reports, accuracy

    return run_ranks(len(parts), work)


def test_parts_without_an_input_learn_from_each_earlier_batch_once_at_most():
    data = batches(30, 16, 6, 3, last=7)
    found = train(make_parts(), data, 0.001, 0.01)
    synthesised = [sum(r.synthesised[rank] for r in found[0][1]) for rank in range(3)]
    assert synthesised[0] == 0
    assert all(0 < count <= 60 for count in synthesised[1:])
    for rank in (1, 2):
        stats = found[rank][0].stats()[f"interface 'input of part {rank}'"]
        assert stats.updates == 60
        assert stats.loss < 0.9
    assert found[0][2] > 0.4


def test_with_inputs_in_time_it_equals_the_update_unlock():
    data = batches(10, 8, 6, 3)
    parts, others = make_parts(), make_parts()
    found = train(parts, data, 100.0, 0.0)
    assert found[0][1][0].synthesised == [0, 0, 0]

    def work(connection):
        part = others[connection.rank]
        opt = torch.optim.SGD(part.parameters(), lr=0.1)
        options = {"synthesizer": LocalLoss_DNI, "context_size": 3, "example": data[0]}
        stage = Stage(part, opt, loss=F.cross_entropy, connection=connection, **options)
        for _ in range(2):
            stage.train(data)
        stage.close()

    run_ranks(3, work)
    for part, other in zip(parts, others, strict=True):
        assert all(map(torch.equal, part.parameters(), other.parameters()))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 8)

    def forward(self, x):
        return self.layer(x), self.layer(-x)


def test_what_cannot_be_predicted_is_refused():
    class Joins(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 3)

        def forward(self, a, b):
            return self.layer(torch.cat([a, b], 1))

    with pytest.raises(DNIError, match="it gets 2 tensors"):
        train([Pair(), Joins()], batches(1, 4, 6, 3), 1.0, 0.0, timeout=1.0)
    with pytest.raises(DNIError, match="take replicas=1"):
        train([Pair(), Joins()], batches(1, 4, 6, 3), 1.0, 0.0, replicas=2)
