"""Parameters of a synthesizer that trains itself."""

import torch
from torch import nn

from pytorch_dni import BackwardInterface, BasicSynthesizer
from tests.support.primitives import double


def test_a_self_trained_synthesizer_adds_no_parameter_to_the_network():
    cut = BackwardInterface(BasicSynthesizer(5))
    net = nn.Sequential(nn.Linear(3, 5), cut)
    assert len([*net.parameters()]) == 2
    assert cut in [*net.modules()]
    assert "BasicSynthesizer" in repr(net)
    net.apply(lambda m: [nn.init.ones_(p) for p in m.parameters(recurse=False)])
    assert not cut.synthesizer.layers.last.weight.any()
    net.double()
    assert cut.synthesizer.layers.last.weight.dtype == torch.float64
    net(double(4, 3)).sum().backward()
    assert cut.stats().updates == 1
    assert net.half()[1].synthesizer.layers.last.weight.dtype == torch.float32
