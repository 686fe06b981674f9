"""Copies and checkpoints of eager wrappers."""

import pytest
import torch

from tests.support.checkpoints import COPIES
from tests.support.eager_nets import assert_same_training, default_and_eager, train
from tests.support.zoo import ZOO


@pytest.mark.parametrize("how", COPIES)
def test_copies_and_loaded_wrappers_train_like_the_original(how):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(12)]
    net = default_and_eager("mlp")[1]
    train(net, inputs[:6], ZOO["mlp"].loss)
    copied, loaded = how(net), default_and_eager("mlp")[1]
    loaded.load_state_dict(net.state_dict())
    for one in (net, copied, loaded):
        train(one, inputs[6:], ZOO["mlp"].loss)
    assert_same_training(copied, net)
    assert_same_training(loaded, net)
    assert loaded.describe() == net.describe()
