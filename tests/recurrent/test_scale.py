"""The scale of predictions does not grow with the predictions themselves."""

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, FutureGradient, TemporalInterface
from tests.support.recurrent_zoo import data, Loop


def test_the_scale_is_not_measured_on_sent_predictions_and_bounds_them():
    """The synthesizer always predicts too much; the true gradients are small."""

    class TooLarge(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.zeros(1))

        def forward(self, trigger, context):
            return trigger.sign() * 3 + self.p * 0

    future = FutureGradient(factor=1.0, bound=None, guard=False, probe=4)
    net = DNI(Loop(nn.GRUCell), recurrent=True, future=future, dni_network=lambda *_: TooLarge())
    state = None
    for x, y in data(200):
        out, state = net(x.float(), state)
        F.mse_loss(out, y.float()).backward()
    scale = net.interfaces["core.state"].scale.value
    assert 0 < scale < 1
    bounded = TemporalInterface(TooLarge(), future=FutureGradient(factor=1.0, bound=0.5))
    bounded.scale.add(4.0)
    sent = bounded.inject(torch.randn(6, 4), None)
    torch.testing.assert_close(sent.norm(dim=1), torch.full((6,), 0.5 * 2 * 2.0))
