"""Contexts: a local head's labels at positions of another resolution are resized."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import ContextError, DNI, LocalError_DNI, LocalLoss_DNI, synthesizer_context

NO_POOL = {"dni_params": {"pool": None}, "context_size": 3}


def segmenter():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, stride=2)
    )


def gradient(kind, context, x):
    torch.manual_seed(0)
    network = segmenter()
    net = DNI(network, dni_network=kind, **NO_POOL)
    for _ in range(3):
        with synthesizer_context(context):
            net(x).square().mean().backward()
    return network[0].weight.grad


@pytest.mark.parametrize("kind", [LocalError_DNI, LocalLoss_DNI])
def test_maps_of_labels_are_resized_by_nearest_neighbours(kind):
    x, labels = torch.randn(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    labels[0, :4] = -100
    resized = gradient(kind, labels, x)
    assert torch.equal(resized, gradient(kind, labels[:, ::2, ::2], x))
    assert not torch.equal(resized, gradient(kind, labels[:, 1::2, 1::2], x))


def test_loss_and_gradients_use_the_resized_target():
    head = LocalLoss_DNI(5, 4, 3, pool=None).double()
    activation = torch.randn(2, 8, 8, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 16, 16))
    exact = head(activation, None)[0]
    expected = F.cross_entropy(exact.flatten(0, -2), labels[:, ::2, ::2].flatten())
    assert torch.equal(head.loss(activation, labels), expected)
    with torch.no_grad():
        one = torch.ones((), dtype=torch.float64)
        found, _ = head.loss_gradient(activation, labels, one)
        same, _ = head.loss_gradient(activation, labels[:, ::2, ::2], one)
    assert torch.equal(found, same)


def test_features_are_resized_and_sequences_too():
    head = LocalLoss_DNI(5, 4, 3, loss=F.mse_loss, pool=None)
    activation, target = torch.randn(2, 4, 5), torch.randn(2, 8, 3)
    assert torch.equal(head.loss(activation, target), head.loss(activation, target[:, ::2]))


@pytest.mark.parametrize("kind", [LocalError_DNI, LocalLoss_DNI])
@pytest.mark.parametrize("pool", [None, 4])
def test_a_refusal_does_not_recommend_what_was_given(kind, pool):
    params = {"pool": pool}
    net = DNI(segmenter(), dni_network=kind, dni_params=params, context_size=3)
    labels = torch.zeros(5, 16, 16, dtype=torch.int64)
    with pytest.raises(ContextError) as refused, synthesizer_context(labels):
        net(torch.randn(2, 1, 16, 16))
    assert ("pool=None" in str(refused.value)) == (pool is not None)
