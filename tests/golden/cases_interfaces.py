"""Train with interfaces that are placed by hand, called or used by send and receive."""

import copy
import itertools
from functools import partial

import torch
from torch import nn

from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    defer_backward,
    ForwardInterface,
    synthesizer_context,
    UnidirectionalInterface,
)

from .cases_kinds import double, labels, OPTIMIZERS, steps


def parts(*sizes):
    """Return linear layers, each with tanh, in double precision."""
    pairs = itertools.pairwise(sizes)
    return nn.ModuleList([nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairs]).double()


def basic(before, after, context=None):
    return BasicSynthesizer(after, 1, 7, trigger_dim=before, context_dim=context).double()


def chain(optim):
    """Train a chain of three parts with two cuts."""
    network = parts(4, 5, 5, 2)
    cuts = [BackwardInterface(basic(5, 5), optim=optim, lr=0.03) for _ in range(2)]

    def step(i):
        h = cuts[1](network[1](cuts[0](network[0](double(6, 4)))))
        network[2](h).square().mean().backward()

    return steps(network, cuts, step)


def bidirectional(optim, context):
    network = parts(4, 5, 2)
    cut = BidirectionalInterface(basic(4, 5, context), basic(5, 5, context), optim=optim)

    def step(i):
        x = double(4, 4)
        with synthesizer_context(labels() if context else None):
            crossed = cut(network[0](x), x)
        network[1](crossed).square().mean().backward()

    return steps(network, [cut], step)


def forward_alone(optim):
    network = parts(4, 5, 2)
    cut = ForwardInterface(basic(4, 5), optim=optim)

    def step(i):
        x = double(6, 4)
        network[1](cut(network[0](x), x)).square().mean().backward()

    return steps(network, [cut], step)


def halves(optim, deferred):
    """Train two halves that exchange messages alone and are synchronised every five steps."""
    network = parts(4, 5, 2)
    ours = BidirectionalInterface(basic(4, 5), basic(5, 5), optim=optim)
    theirs = copy.deepcopy(ours)

    def step(i):
        x = double(6, 4)
        if deferred:
            with defer_backward():
                ours.send(network[0](x), x)
        else:
            ours.send(network[0](x), x)
        network[1](theirs.receive(x)).square().mean().backward()
        if i % 5 == 4:
            theirs.forward_interface.load_state_dict(ours.forward_interface.state_dict())
            ours.backward_interface.load_state_dict(theirs.backward_interface.state_dict())

    return steps(network, [ours, theirs], step)


def sent(kind, optim, deferred):
    """Teach messages by triggers; the predictions are part of the result."""
    size = 5 if kind is BackwardInterface else 4
    interface = kind(basic(size, 5, 3), optim=optim)
    predicted = []

    def step(i):
        trigger, message = double(4, size), double(4, 5)
        with synthesizer_context(labels()):
            predicted.append(interface.receive(trigger))
            if deferred:
                with defer_backward():
                    interface.send(message, trigger)
                    interface.send(message + 1, trigger * 2)
            else:
                interface.send(message, trigger)

    return [*predicted, *steps(nn.Linear(1, 1), [interface], step)]


def window(optim, factor):
    """Train a recurrent network on windows; its last state receives a synthetic gradient."""
    network = nn.ModuleList([nn.GRUCell(3, 4), nn.Linear(4, 2)]).double()
    future = BackwardInterface(basic(4, 4), optim=optim)
    state = [double(5, 4)]

    def step(i):
        loss = 0
        with defer_backward():
            now = future.make_trigger(state.pop())
            for x in double(3, 5, 3):
                now = network[0](x, now)
                loss = loss + network[1](now).square().mean()
            backward(loss)
            future.backward(now, factor)
        state.append(now)

    return [*steps(network, [future], step), *state]


def deferred_passes():
    """Backpropagate from several tensors, in one deferred pass or at once."""
    found = []
    for together in (True, False):
        x = double(3, 4).requires_grad_()
        h = torch.tanh(x)
        if together:
            with defer_backward():
                backward((h**2).sum())
                backward((h**3).sum())
                backward(h, torch.full_like(h, 2.0))
        else:
            backward((h**3).sum())
        found.append(x.grad)
    return found


def broken_off():
    """Train with scopes of which every second one raises."""
    front = nn.Linear(4, 5).double()
    interface = BackwardInterface(basic(5, 5))

    def step(i):
        h = front(double(6, 4))
        try:
            with defer_backward():
                backward(h.square().sum())
                interface.send(h, h)
                if i % 2:
                    raise KeyError
        except KeyError:
            interface(front(double(6, 4))).square().mean().backward()

    return steps(front, [interface], step)


CASES = {"deferred passes": deferred_passes, "broken off": broken_off}
for how, optim in OPTIMIZERS.items():
    CASES[f"chain / {how}"] = partial(chain, optim)
    CASES[f"bidirectional / {how}"] = partial(bidirectional, optim, None)
    CASES[f"bidirectional, context / {how}"] = partial(bidirectional, optim, 3)
    CASES[f"forward alone / {how}"] = partial(forward_alone, optim)
    for deferred in (False, True):
        suffix = f"{', deferred' if deferred else ''} / {how}"
        CASES[f"halves{suffix}"] = partial(halves, optim, deferred)
        for kind in (UnidirectionalInterface, ForwardInterface, BackwardInterface):
            CASES[f"sent, {kind.__name__}{suffix}"] = partial(sent, kind, optim, deferred)
    for factor in (1.0, 0.1):
        CASES[f"window, factor {factor} / {how}"] = partial(window, optim, factor)
CASES = {f"interfaces / {name}": case for name, case in CASES.items()}
