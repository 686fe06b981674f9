"""The learner: steps of the synthesizers' optimizer."""

import pytest
import torch
from torch import nn

from pytorch_dni import FutureGradient, Linear_DNI, TemporalInterface
from pytorch_dni.interfaces._learner import Learner
from pytorch_dni.interfaces._pending import Lesson


@pytest.mark.parametrize("optim", ["adam", "sgd"])
def test_an_overflow_skips_its_own_step_only(optim):
    """A fused optimizer reads the overflow from a flag, which must not stay for later steps."""
    layer = nn.Linear(2, 2)
    learner = Learner(optim, 0.1)
    learner.add([(layer, 0.1)])
    grads = [(p, torch.ones_like(p)) for p in layer.parameters()]
    before = layer.weight.clone()
    learner.teach([Lesson([*grads], square=torch.tensor(float("inf")))])
    assert torch.equal(layer.weight, before)
    learner.teach([Lesson([(p, torch.ones_like(p)) for p in layer.parameters()])])
    assert not torch.equal(layer.weight, before)


def test_each_parameter_is_trained_once():
    interface = TemporalInterface(Linear_DNI(3, 4, 3), future=FutureGradient(auxiliary=0.1))
    groups = interface.learner.optimizer.param_groups
    trained = [id(p) for group in groups for p in group["params"]]
    own = [*interface.synthesizer.parameters(), *interface.auxiliary.parameters()]
    assert sorted(trained) == sorted(id(p) for p in own)
