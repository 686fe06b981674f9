"""Synthesizers of activations: the defaults fit all shapes, and the user may give others."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import (
    BasicSynthesizer,
    Conv2d_DNI,
    DNI,
    DNIError,
    Linear_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.zoo import relu_mlp


def stack(*layers):
    return lambda: nn.Sequential(*layers)


SHAPES = {
    "maps": (stack(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 3, 3)), (5, 2, 9, 9)),
    "1d": (stack(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3)), (5, 2, 9)),
    "3d": (stack(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.Conv3d(4, 3, 3)), (5, 2, 5, 5, 5)),
    "flattened": (stack(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), (5, 2, 4)),
    "sequence": (stack(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), (5, 2, 8)),
    "unflattened": (stack(nn.Unflatten(1, (2, 4)), nn.Linear(4, 4), nn.Linear(4, 3)), (5, 8)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("context", "regressed"), [(None, False), (3, False), (3, True)])
def test_default_synthesizers_fit_all_shapes(name, context, regressed):
    build, shape = SHAPES[name]
    kind = None
    if regressed:
        kind = Conv2d_DNI if name in ("maps", "1d", "3d") else Linear_DNI
    net = DNI(copy.deepcopy(build()), unlock="full", context_size=context, dni_network=kind)
    for _ in range(3):
        labels = torch.randint(0, 3, (shape[0],))
        with synthesizer_context(labels if context else None):
            net(torch.randn(shape)).square().mean().backward()
    (stats,) = net.stats("forward").values()
    assert stats.updates == 2  # The first pass places the cuts.


def test_forward_network_makes_the_users_synthesizers():
    calls = []

    def make(name, input, output):
        calls.append((name, tuple(input.shape), tuple(output.shape)))
        return BasicSynthesizer(6, 2, 9, 6)

    net = DNI(relu_mlp(1), unlock="full", forward_network=make, context_size=3)
    for _ in range(2):
        with synthesizer_context(torch.zeros(4, dtype=torch.int64)):
            net(torch.randn(4, 6)).sum().backward()
    assert calls == [("1", (4, 6), (4, 6))]
    assert net.interfaces["1"].forward_interface.context_size is None
    assert net.interfaces["1"].backward_interface.context_size == 3
    for wrong in ({"forward_network": make}, {"unlock": "full", "forward_network": 3}):
        with pytest.raises(SynthesizerError, match="forward_network"):
            DNI(relu_mlp(), **wrong)
    with pytest.raises(SynthesizerError, match="must return a module"):
        DNI(
            relu_mlp(),
            unlock="full",
            forward_network=lambda *_: 3,
            example_input=torch.randn(2, 6),
        )
    with pytest.raises(DNIError, match="'update' or 'full'"):
        DNI(relu_mlp(), unlock="forward")
