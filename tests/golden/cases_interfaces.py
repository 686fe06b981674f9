"""Interfaces by hand: called inside a network, and by send and receive."""

import copy
import itertools
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    Conv2d_DNI,
    defer_backward,
    ForwardInterface,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
    UnidirectionalInterface,
)

from .results import of_interfaces, STEPS

OPTIMIZERS = {"itself": "adam", "sgd": "sgd", "user": None}


class Own(nn.Module):
    """A user's synthesizer of feature maps, whose target is taken as it is."""

    feature_dim = 1
    context_dim = 3
    normalize_target = False

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(8, 7, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, trigger, context):
        return self.outer(F.relu(self.inner(torch.cat([trigger, context], 1))))


# The synthesizer, the interface's context_size, and the shape of the activation.
KINDS = {
    "linear": (lambda: Linear_DNI(8, 7, 5), 3, (4, 5)),
    "sigmoid": (lambda: Linear_Sigmoid_DNI(8, 7, 5), 3, (4, 5)),
    "rnn": (lambda: RNN_DNI(8, 7, 5), 3, (4, 6, 5)),
    "conv": (lambda: Conv2d_DNI(8, 7, 5), 3, (4, 5, 6, 6)),
    "local": (lambda: LocalLoss_DNI(5, 7, 3), 3, (4, 5)),
    "basic": (lambda: BasicSynthesizer(5, 1, 7, context_dim=3), None, (4, 5)),
    "own": (Own, None, (4, 5, 6, 6)),
}


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def labels():
    return torch.randint(3, (4,))


class Front(nn.Module):
    """Scale and shift an activation: a part whose gradients show what an interface sends."""

    def __init__(self, shape):
        super().__init__()
        self.scale, self.shift = nn.Parameter(double(*shape)), nn.Parameter(double(*shape))

    def forward(self, x):
        return torch.tanh(x * self.scale + self.shift)


def steps(network, interfaces, step):
    """Call ``step`` in a loop that trains the network and what leaves training to the user."""
    opt = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    own = [p for interface in interfaces for p in interface.parameters()]
    their_opt = torch.optim.Adam(own, lr=1e-2) if own else None
    for i in range(STEPS):
        opt.zero_grad()
        step(i)
        opt.step()
        if their_opt is not None:
            their_opt.step()
            their_opt.zero_grad()
    return [*network.state_dict().values(), *of_interfaces(*interfaces)]


def called(kind, optim):
    make, context_size, shape = KINDS[kind]
    interface = BackwardInterface(make().double(), optim=optim, context_size=context_size)
    front, weight = Front(shape[1:]), double(*shape)

    def step(i):
        with synthesizer_context(labels()):
            crossed = interface(front(double(*shape)))
        (crossed * weight).square().mean().backward()

    return steps(front, [interface], step)


def parts(*sizes):
    """Return linear layers, each with tanh, in double precision."""
    pairs = itertools.pairwise(sizes)
    return nn.ModuleList([nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairs]).double()


def basic(before, after, context=None):
    return BasicSynthesizer(after, 1, 7, trigger_dim=before, context_dim=context).double()


def chain(optim):
    """Two cuts in a chain of three parts."""
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
    """Two halves that exchange nothing but messages, and are synchronised every five steps."""
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
    """Teach any message by any trigger; what is predicted is part of the result."""
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
    """A truncated recurrent network: the first state is a trigger, the last one is sent into."""
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
    """Several roots and given gradients, collected into one pass or propagated at once."""
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
    """A scope whose body raises leaves nothing behind."""
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


def saved(kind, optim):
    """Load an interface's state into a fresh one after each step."""
    make, context_size, shape = KINDS[kind]
    interfaces = [
        BackwardInterface(make().double(), optim=optim, context_size=context_size) for _ in range(2)
    ]
    front = Front(shape[1:])

    def step(i):
        first, second = interfaces if i % 2 else interfaces[::-1]
        first.load_state_dict(second.state_dict())
        with synthesizer_context(labels()):
            first(front(double(*shape))).square().mean().backward()

    return steps(front, interfaces, step)


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
    for name in KINDS:
        CASES[f"called / {how} / {name}"] = partial(called, name, optim)
        if how != "sgd":
            CASES[f"saved / {how} / {name}"] = partial(saved, name, optim)
CASES = {f"interfaces / {name}": case for name, case in CASES.items()}
