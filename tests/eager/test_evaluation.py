"""In evaluation eager learning attaches and trains nothing."""

import torch

from tests.support.eager_nets import default_and_eager
from tests.support.hooks import forward_hooks
from tests.support.zoo import ZOO


def test_evaluation_changes_nothing():
    net = default_and_eager("mlp")[1]
    x = ZOO["mlp"].input()
    ZOO["mlp"].loss(net(x)).backward()
    net.eval()
    assert torch.equal(net(x), net.network(x))
    net.train()
    with torch.no_grad():
        net(x)
    assert net.stats()["1"].updates == 1
    bare = net.unwrap()
    assert not forward_hooks(bare)
