"""The backward unlock across ranks: the error comes in one hop, whatever the depth."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Feedback_DNI
from pytorch_dni.distributed import Stage
from pytorch_dni.distributed._backward_trainer import kept_weights
from tests.support.pipeline import batches, run_ranks


def make_parts():
    torch.manual_seed(1)
    sizes = [(6, 8), (8, 8), (8, 7)]
    return [*(nn.Sequential(nn.Linear(*size), nn.Tanh()) for size in sizes), nn.Linear(7, 3)]


def train(parts, data, in_flight, calls=1):
    def work(connection):
        part = parts[connection.rank]
        stage = Stage(
            part,
            torch.optim.SGD(part.parameters(), lr=0.1),
            loss=F.cross_entropy,
            example=data[0],
            unlock="backward",
            max_in_flight=in_flight,
            connection=connection,
        )
        reports = [stage.train(data) for _ in range(calls)]
        stage.close()
        return stage, reports

    return run_ranks(len(parts), work)


def test_with_one_batch_in_flight_it_equals_the_wrapper():
    data = batches(12, 8, 6, 3, last=5)
    parts = make_parts()
    alone = nn.Sequential(*copy.deepcopy(parts))
    opt = torch.optim.SGD(alone.parameters(), lr=0.1)
    net = DNI(alone, layers=["0", "1", "2"], dni_network=Feedback_DNI)
    for x, y in data:
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    found = train(parts, data, 1)
    for name, value in nn.Sequential(*parts).state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
    for (stage, _), interface in zip(found, net.interfaces.values(), strict=False):
        (stats,) = stage.stats().values()
        assert stats.updates == 12
        assert stats.cosine == pytest.approx(interface.stats().cosine, abs=1e-4)


def test_several_batches_in_flight_learn_from_the_weights_of_their_forward_pass():
    data = batches(30, 16, 6, 3)
    runs = []
    for _ in range(2):
        parts = make_parts()
        found = train(parts, data, 3, calls=3)
        runs.append([p for part in parts for p in part.parameters()])
        losses = [report.loss for report in found[0][1]]
        assert losses[2] < losses[0] - 0.03
        assert [stats.updates for stage, _ in found[:3] for stats in stage.stats().values()] == [
            90,
            90,
            90,
        ]
    assert all(map(torch.equal, *runs))


def test_graphs_keep_the_weights_of_their_forward_pass():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(3, 4, requires_grad=True)
    grad = torch.randn(3, 2)
    expected = torch.autograd.grad(network(x), [x, *network.parameters()], grad)
    with kept_weights(network.parameters()):
        output = network(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    found = torch.autograd.grad(output, [x, *network.parameters()], grad)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_batches_that_are_refused_leave_messages_in_order():
    data = batches(6, 8, 6, 3)
    for number in (2, 5):
        data[number][0][0, 0] = torch.nan
    parts = make_parts()
    for in_flight in (1, 3):
        reports = [report for _, (report,) in train(parts, data, in_flight)]
        assert reports[0].refused == [2, 2, 2, 2]
        assert all(bool(p.isfinite().all()) for part in parts for p in part.parameters())
