"""Eager learning frees the activations of parts that have run."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Linear_DNI, LocalError_DNI, LocalLoss_DNI, synthesizer_context


class Held:
    """Holds a tensor that a graph has saved, and keeps the set of those alive."""

    alive: set[int] = set()  # noqa: RUF012

    def __init__(self, tensor):
        self.tensor = tensor
        Held.alive.add(id(self))

    def __del__(self):
        Held.alive.discard(id(self))


class Graph_DNI(Linear_DNI):
    """A synthesizer that learns through autograd."""

    def as_mlp(self):
        return None


@pytest.mark.parametrize("kind", [Linear_DNI, Graph_DNI, LocalLoss_DNI, LocalError_DNI])
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_of_parts_that_have_run_are_freed(kind, autocast):
    local = issubclass(kind, LocalLoss_DNI)

    def count_alive(depth, eager):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(depth)]
        options = {"dni_network": kind, "context_size": 3 if local else None}
        net = DNI(nn.Sequential(*layers, nn.Linear(16, 3)), eager=eager, **options)
        x, y = torch.randn(512, 16), torch.randint(3, (512,))
        for _ in range(3):
            gc.collect()
            Held.alive.clear()
            hooks = torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor)
            cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
            with cast, hooks, synthesizer_context(y if local else None):
                out = net(x)
            alive = len(Held.alive)
            F.cross_entropy(out.float(), y).backward()
        return alive

    assert count_alive(12, True) == count_alive(4, True) < (12 if kind is Graph_DNI else 6)
    assert count_alive(12, False) >= count_alive(4, False) + 16
