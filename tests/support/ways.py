"""Every way to learn, and a training run on each that can be disturbed."""

import torch
from torch.nn import functional as F

from pytorch_dni import Linear_DNI, LocalLoss_DNI, RNN_DNI, synthesizer_context
from tests.support.wrapped import Run

LABELS = {"context_size": 3}
WAYS = {
    "backward": {},
    "exact every": {"exact_every": 2},
    "sparse": {"update_probability": 0.5},
    "lambda": {"bp_lambda": 0.5},
    "update": {"unlock": "update"},
    "rnn": {"unlock": "update", "dni_network": RNN_DNI},
    "eager": {"eager": True},
    "full": {"unlock": "full"},
    "joined error": {"dni_network": Linear_DNI, "dni_params": {"takes_error": True}},
    "labels": LABELS,
    "joined labels": {"dni_network": Linear_DNI, **LABELS},
    "local loss": {"dni_network": LocalLoss_DNI, **LABELS},
    "exact every, labels": {"exact_every": 2, **LABELS},
    "eager, labels": {"eager": True, **LABELS},
}


def run_of(way, **options):
    """Return a training run on a way; without labels unless the way takes them."""
    return Run(**{"context_size": None, **WAYS[way], **options})


def data(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=draw), torch.randint(0, 3, (8,), generator=draw)


def loss_of(run, x, y, criterion=F.cross_entropy):
    """Return the loss of a forward pass, in the scope of the labels where the way takes them."""
    with synthesizer_context(y if run.takes_context else None):
        return criterion(run.net(x), y)


def assert_same(run, other):
    """Compare all parameters, and what the interfaces have measured, to the bit."""
    for a, b in zip(run.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)
    assert repr(run.net.stats()) == repr(other.net.stats())
