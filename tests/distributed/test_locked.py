"""The locked mode equals backpropagation in one process."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches, run_ranks


def parts(count):
    torch.manual_seed(1)
    made = [nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())]
    made += [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(count - 2)]
    return [*made, nn.Linear(8, 3)]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_parameters_equal_those_of_one_process(count, in_flight):
    data = batches(5, 8, 6, 3, last=5)
    own = parts(count)
    alone = nn.Sequential(*copy.deepcopy(own)).double()
    own = [part.double() for part in own]
    data = [(x.double(), y) for x, y in data]
    opt = torch.optim.Adam(alone.parameters(), lr=1e-2)
    losses = []
    for x, y in data:
        opt.zero_grad()
        loss = F.cross_entropy(alone(x), y)
        loss.backward()
        opt.step()
        losses.append(loss.item())

    def work(connection):
        part = own[connection.rank]
        opt = torch.optim.Adam(part.parameters(), lr=1e-2)
        stage = Stage(
            part,
            opt,
            loss=F.cross_entropy,
            example=data[0],
            unlock="locked",
            max_in_flight=in_flight,
            connection=connection,
        )
        report = stage.train(data)
        stage.close()
        return report

    reports = run_ranks(count, work)
    assert {report[:2] for report in reports} == {(5, 37)}
    assert reports[0].loss == pytest.approx(sum(losses) / 5)
    whole = nn.Sequential(*own).state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(whole[name], value)


@pytest.mark.parametrize("unlock", ["locked", "update", "backward"])
def test_one_rank_trains_the_whole_network(unlock):
    data = batches(5, 8, 6, 3, last=5)
    whole = nn.Sequential(*parts(3))
    alone = copy.deepcopy(whole)
    opt = torch.optim.SGD(alone.parameters(), lr=0.1)
    for x, y in data:
        opt.zero_grad()
        F.cross_entropy(alone(x), y).backward()
        opt.step()

    def work(connection):
        opt = torch.optim.SGD(whole.parameters(), lr=0.1)
        options = {"unlock": unlock, "loss": F.cross_entropy, "example": data[0]}
        stage = Stage(whole, opt, connection=connection, **options)
        stage.train(data)
        found = stage.evaluate(data, lambda output, target: output[:, 0].mean())
        stage.close()
        return found

    (found,) = run_ranks(1, work)
    alone.eval()
    outputs = torch.cat([alone(x) for x, _ in data])
    assert found == pytest.approx(outputs[:, 0].mean().item(), abs=1e-5)
    for name, value in alone.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value)
