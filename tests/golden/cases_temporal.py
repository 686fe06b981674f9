"""Train on windows with temporal interfaces and critics that are placed by hand."""

from functools import partial

import torch
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BasicSynthesizer,
    Critic_DNI,
    CriticInterface,
    defer_backward,
    synthesizer_context,
    TemporalInterface,
)

from .cases_windows import Loud
from .results import of_interfaces, STEPS
from .shared import data, FutureGradient, NETWORKS, tensors

# The number of features of the state, and the dimension of the samples.
STATES = {"lstm": (16, 1), "gru cell": (4, 0), "own": (10, 0)}
FUTURES = {
    "default": {},
    "factor, probe, bound": {"factor": 0.8, "probe": 3, "bound": 0.5},
    "no bound, no guard": {"factor": 1.0, "bound": None, "guard": False},
    "auxiliary": {"factor": 0.8, "auxiliary": 0.5},
}


def labels(i):
    return (torch.arange(5) + i) % 3


def windows(name, make, observe, optim, resume=False):
    """Train on windows, with an interface that ``make`` returns for a state.

    With ``resume`` a fresh interface loads the saved state after half of the windows.
    """
    features, batch_dim = STATES[name]
    network = NETWORKS[name][0]().double()
    future = make(features, batch_dim=batch_dim, optim=optim)
    own = [*future.parameters()]
    groups = [{"params": [*network.parameters()]}, {"params": own}] if own else network.parameters()
    opt = torch.optim.SGD(groups, lr=0.05, momentum=0.5)
    state = None
    for i, (x, y) in enumerate(data(windows=STEPS)):
        if resume and i == STEPS // 2:
            saved = future.state_dict()
            future = make(features, batch_dim=batch_dim, optim=optim)
            future.load_state_dict(saved)
        opt.zero_grad()
        with synthesizer_context(labels(i)), defer_backward():
            out, state = network(x, None if state is None else future.make_trigger(state))
            losses = F.mse_loss(out, y, reduction="none").mean((0, 2)) / 5
            if observe:
                future.observe(losses)
            backward(losses.sum())
            future.backward(state, 0.3 if i % 5 == 4 else None)
        opt.step()
    return [*network.parameters(), *tensors(state), *of_interfaces(future)]


def temporal(options, context, features, **given):
    synthesizer = BasicSynthesizer(features, 1, 7, context_dim=context).double()
    return TemporalInterface(synthesizer, future=FutureGradient(**options), **given)


def critic(options, context, features, **given):
    synthesizer = Critic_DNI(features + context, 7, features, horizon=3, discount=0.5)
    future = FutureGradient(**options)
    return CriticInterface(synthesizer.double(), context_size=context, future=future, **given)


def guarded():
    """Train until the guard stops synthetic gradients, and until it allows them again."""
    future = TemporalInterface(Loud().double(), future=FutureGradient(factor=1.0), lr=0.05)
    received = []
    for _ in range(320):
        state = future.make_trigger(torch.randn(6, 4, dtype=torch.float64))
        last = (state.detach() + 1).requires_grad_()
        with defer_backward():
            backward((state * state.detach()).sum())
            future.backward(last * 1)
        received.append(last.grad.norm())
    return [torch.stack(received), *of_interfaces(future)]


CASES = {"temporal / guarded": guarded}
for name in STATES:
    made = {title: partial(temporal, options, 3) for title, options in FUTURES.items()}
    made["critic"] = partial(critic, FUTURES["factor, probe, bound"], 3)
    for title, make in made.items():
        given = name, make, title == "critic"
        CASES[f"temporal / {title} / itself / {name}"] = partial(windows, *given, "adam")
        CASES[f"temporal / {title} / user / {name}"] = partial(windows, *given, None)
        CASES[f"temporal / {title} / resumed / {name}"] = partial(windows, *given, "adam", True)
