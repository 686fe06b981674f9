"""Memory does not grow with the count of windows."""

import gc

import pytest
import torch
from torch.nn import functional as F

from pytorch_dni import DNI
from tests.support.recurrent_zoo import data, NETWORKS


def live_tensors():
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_count_of_live_tensors_does_not_grow(name):
    build, recurrent = NETWORKS[name]
    net = DNI(build(), recurrent=recurrent)
    optimizer = torch.optim.Adam(net.parameters())
    x, y = (t.float() for t in data(1)[0])
    counts, state = [], None
    for i in range(60):
        out, state = net(x, state)
        loss = F.mse_loss(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i in (20, 40, 59):
            counts.append(live_tensors())
    assert counts[0] >= counts[1] >= counts[2]
