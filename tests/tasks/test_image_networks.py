"""Networks for images: shapes, and cuts at every block."""

import pytest
import torch

from pytorch_dni import DNI
from tasks.image_networks import Block, NETWORKS

CUTS = {
    "cnn": ["3", "7", "11"],
    "resnet": ["stem", "block1", "block2", "block3", "block4", "block5", "block6"],
    "vgg": ["3", "7", "10", "14", "17", "21", "24", "27"],
}


def images(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_classify_images(name):
    network = NETWORKS[name].build(7)
    assert network(images()).shape == (2, 7)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == {"cnn": 3, "resnet": 1 + 6 * 2 + 2, "vgg": 8}[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_default_cuts(name):
    network, layers = NETWORKS[name]
    net = DNI(network(10), layers=layers, example_input=images())
    assert list(net.interfaces) == CUTS[name]


def test_every_block_of_the_residual_network_separates_it():
    # Eager learning refuses cuts that leave a connection around them.
    network, layers = NETWORKS["resnet"]
    net = DNI(network(10), layers=layers, eager=True, example_input=images())
    net(images()).square().mean().backward()
    assert {stats.updates for stats in net.stats().values()} == {1}


@pytest.mark.parametrize(("channels", "shape"), [(16, (2, 16, 8, 8)), (32, (2, 32, 4, 4))])
def test_blocks_halve_the_image_where_they_widen(channels, shape):
    block = Block(16, channels).eval()
    input = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    output = block(input)
    assert output.shape == shape
    assert torch.equal(output, (block.layers(input) + block.shortcut(input)).relu())
    assert isinstance(block.shortcut, torch.nn.Identity) == (channels == 16)
