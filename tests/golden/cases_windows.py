"""Train every recurrent network, cut in time, on windows of sequences."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BasicSynthesizer,
    Critic_DNI,
    DNI,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    RNN_DNI,
    synthesizer_context,
)

from .results import of_wrapper, seed, STEPS
from .shared import data, FutureGradient, NETWORKS, rebuilt, tensors

LEFT_OUT = "left out"
GUARDED = 50  # The guard first looks after 32 updates.
ALL = [*NETWORKS]
FEW = ["gru cell", "own"]


class Mode(NamedTuple):
    """Describe one way to train: arguments of ``DNI``, networks, contexts and the loop.

    ``begin`` returns the state that a window is given, ``finish`` acts between the forward and the
    backward pass and returns the loss; None stands for a window without a loss, and ``LEFT_OUT``
    for one without a backward pass.
    """

    options: dict[str, Any]
    nets: list[str] = ALL
    context: Any = None
    begin: Any = lambda name, i, state: state
    finish: Any = lambda net, i, out, y: F.mse_loss(out, y)
    steps: int = STEPS


def begun(name, mode):
    """Return a fresh wrapper and its optimizer."""
    build, recurrent = NETWORKS[name]
    seed(1)
    network = build().double()
    opt = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    seed(3)
    options = {"unlock": "update", "recurrent": recurrent, **mode.options}
    return DNI(network, opt, **options), opt


def go_on(name, mode, net, opt, state, windows):
    """Train on some windows, given as a range; return the last state."""
    pairs = data(windows=mode.steps)
    for i in windows:
        x, y = pairs[i]
        given = mode.begin(name, i, state)
        if given is not None:
            size = tensors(given)[0].shape[batch_dim(name)]
            x, y = x[:, :size], y[:, :size]
        with synthesizer_context(mode.context(i, x.shape[1]) if mode.context else None):
            out, state = net(x, given)
        loss = mode.finish(net, i, out, y)
        if loss is LEFT_OUT:
            continue
        opt.zero_grad()
        if loss is None:
            net.backward_state()
        else:
            loss.backward()
        if loss is None or loss.isfinite():
            opt.step()
    return state


def trained(name, mode):
    net, opt = begun(name, mode)
    state = go_on(name, mode, net, opt, None, range(mode.steps))
    return [*tensors(state), *of_wrapper(net)]


def batch_dim(name):
    return 1 if name in ("lstm", "gru", "rnn") else 0


def labels(i, batch):
    return (torch.arange(batch) + i) % 3


def features(i, batch):
    return torch.linspace(-1, 1, 3 * batch).view(batch, 3) * (i % 4)


def never_handed_on(name, i, state):
    return None


def dropped(name, i, state):
    return None if i % 7 == 6 else state


def detached(name, i, state):
    return None if state is None else rebuilt(state, iter([t.detach() for t in tensors(state)]))


def some_begin_anew(name, i, state):
    """Set the states of some samples to zero."""
    if state is None or i % 4 != 2:
        return state
    keep = torch.tensor([1.0, 0, 1, 1, 0], dtype=torch.float64)
    dim = batch_dim(name)
    new = []
    for t in tensors(state):
        shape = [1] * t.dim()
        shape[dim] = 5
        new.append(t.detach() * keep.view(shape))
    return rebuilt(state, iter(new))


def shrunk(name, i, state):
    """Keep the first three samples from window 12 on."""
    if i != 12:
        return state
    return rebuilt(state, iter([t.narrow(batch_dim(name), 0, 3) for t in tensors(state)]))


def ends(net, i, out, y):
    """Say that sequences ended: some of them, or all."""
    if i % 4 == 2:
        net.end_of_sequence(torch.tensor([True, False, False, True, False]))
    elif i % 11 == 10:
        net.end_of_sequence()
    return F.mse_loss(out, y)


def observed(net, i, out, y):
    losses = F.mse_loss(out, y, reduction="none").mean((0, 2)) / len(y[0])
    net.observe(losses)
    return losses.sum()


def ends_observed(net, i, out, y):
    ends(net, i, out, y)
    return observed(net, i, out, y)


def without_loss(net, i, out, y):
    return None if i % 4 == 3 else F.mse_loss(out, y)


def left_out(net, i, out, y):
    return LEFT_OUT if i % 5 == 3 else F.mse_loss(out, y)


def overflowing(net, i, out, y):
    return F.mse_loss(out, y) * (torch.inf if i == 9 else 1)


class Loud(nn.Module):
    """Predict gradients that are too large at first, so that the guard stops them."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, trigger, context):
        return trigger.sign() * self.gain


def loud(name, module, output):
    return Loud()


def future(**options):
    return {"future": FutureGradient(**options)}


FACTOR = future(factor=0.8, probe=3, bound=0.5)
RETURNS = future(factor=0.8, probe=3, target="returns", windows=3, lambda_=0.7)
# Eligibility traces need perceptrons without normalisation.
PLAIN = {"dni_network": Linear_DNI, "dni_params": {"norm": None}}
TRACES = {**PLAIN, **future(factor=0.8, probe=3, target="traces", lambda_=0.7)}
AUXILIARY = future(factor=0.8, auxiliary=0.5)
CRITIC = {
    "dni_network": Critic_DNI,
    "dni_params": {"horizon": 3, "discount": 0.5},
    **future(factor=0.8),
}
CONTEXT = {"context_size": 3}

MODES = {
    "default": Mode({}),
    "context": Mode(CONTEXT, context=labels),
    "context, features": Mode({**CONTEXT, **FACTOR}, FEW, features),
    "factor, probe, bound": Mode(FACTOR),
    "no bound": Mode(future(factor=1.0, bound=None, probe=4), FEW),
    "no factor": Mode(future(factor=0.0), FEW),
    "lambda": Mode({"bp_lambda": 0.5, **FACTOR}, FEW),
    "sparse": Mode({"update_probability": 0.5, **FACTOR}, FEW),
    "three steps": Mode({"grad_steps": 3, **FACTOR}, FEW),
    "sgd": Mode({"grad_optim": "sgd", "grad_lr": 0.1, **FACTOR}, FEW),
    "guard": Mode({"dni_network": loud, **future(factor=0.1)}, ["lstm", *FEW], steps=GUARDED),
    "no guard": Mode({"dni_network": loud, **future(factor=0.1, guard=False)}, FEW, steps=GUARDED),
    "returns": Mode(RETURNS),
    "returns, context": Mode({**CONTEXT, **RETURNS}, FEW, labels),
    "returns, ends": Mode(RETURNS, FEW, finish=ends),
    "returns, dropped": Mode(RETURNS, FEW, begin=dropped),
    "returns, shrunk": Mode(RETURNS, FEW, begin=shrunk),
    "returns, auxiliary": Mode(future(factor=0.8, target="returns", windows=2, auxiliary=0.5), FEW),
    "traces": Mode(TRACES),
    "traces, linear": Mode(
        {**TRACES, "dni_params": {"norm": None, "num_layers": 0}, "hidden_size": 3}, FEW
    ),
    "traces, context": Mode({**CONTEXT, **TRACES}, FEW, labels),
    "traces, ends": Mode(TRACES, FEW, finish=ends),
    "traces, dropped": Mode(TRACES, FEW, begin=dropped),
    "traces, shrunk": Mode(TRACES, FEW, begin=shrunk),
    "auxiliary": Mode(AUXILIARY),
    "auxiliary, context": Mode({**CONTEXT, **AUXILIARY}, FEW, labels),
    "auxiliary, ends": Mode(AUXILIARY, FEW, finish=ends),
    "critic": Mode(CRITIC, finish=observed),
    "critic, context": Mode({**CONTEXT, **CRITIC}, FEW, labels, finish=observed),
    "critic, ends": Mode(CRITIC, FEW, finish=ends_observed),
    "critic, dropped": Mode(CRITIC, FEW, begin=dropped, finish=observed),
    "critic, shrunk": Mode(CRITIC, FEW, begin=shrunk, finish=observed),
    "ends": Mode(FACTOR, finish=ends),
    "never handed on": Mode(FACTOR, begin=never_handed_on),
    "dropped": Mode(FACTOR, begin=dropped),
    "detached": Mode(FACTOR, begin=detached),
    "some begin anew": Mode(FACTOR, begin=some_begin_anew),
    "shrunk": Mode(FACTOR, begin=shrunk),
    "backward_state": Mode(FACTOR, finish=without_loss),
    "backward_state, returns": Mode(RETURNS, FEW, finish=without_loss),
    "left out": Mode(FACTOR, FEW, finish=left_out),
    "returns, left out": Mode(RETURNS, FEW, finish=left_out),
    "traces, left out": Mode(TRACES, FEW, finish=left_out),
    "auxiliary, shrunk": Mode(AUXILIARY, FEW, begin=shrunk),
    "overflow": Mode(FACTOR, FEW, finish=overflowing),
    "space and time": Mode({"layers": "core", "recurrent": True, **FACTOR}, ["lstm", "gru cell"]),
    "space and traces": Mode({"layers": "core", "recurrent": True, **TRACES}, ["lstm"]),
    "basic": Mode({"dni_network": BasicSynthesizer, **FACTOR}, FEW),
    "sigmoid": Mode({"dni_network": Linear_Sigmoid_DNI, **FACTOR}, FEW),
    "rnn": Mode({"dni_network": RNN_DNI, **FACTOR}, FEW),
}

CASES = {
    f"windows / {mode_name} / {name}": partial(trained, name, mode)
    for mode_name, mode in MODES.items()
    for name in mode.nets
}
