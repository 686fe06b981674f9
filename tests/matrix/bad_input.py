"""What must be refused, or survived. ``tests/bad_input`` has more, on more ways."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI, DNI_Network, Linear_DNI, synthesizer_context
from tests.matrix.row import PyTorchError, Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, mlp, sgd, steps, vectors


def _wrapped(build: Callable[[], nn.Module] = mlp, **options: Any) -> Callable[[Session], None]:
    return steps(build, vectors(), **options)


def _with_context(draw: Callable[[Tensor], Any], **options: Any) -> Callable[[Session], None]:
    """Return a run whose forward passes are given a context, made from the labels."""

    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        net = session.wrap(network, opt, **options)
        for _ in range(4):
            (x,), _, y = vectors()()
            opt.zero_grad()
            with synthesizer_context(draw(y)):
                out = net(x)
            F.cross_entropy(out, y).backward()
            opt.step()

    return run


def _number(value: float) -> Callable[[Session], None]:
    """Return a run with one input that is not finite, whose step is left out."""

    def run(session: Session) -> None:
        network = mlp(normalised=False)
        opt = sgd(network)
        net = session.wrap(network, opt)
        for index in range(6):
            (x,), _, y = vectors()()
            if index == 2:
                x[0, 0] = value
            opt.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            if loss.isfinite():
                opt.step()

    return run


def _shape(session: Session) -> None:
    """Inputs that are too narrow, in the third step."""
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index in range(4):
        (x,), _, y = vectors(width=5 if index == 2 else 6)()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def _survived_shape(session: Session) -> None:
    """Inputs that are too narrow; the error is caught, and training goes on."""
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index in range(6):
        (x,), _, y = vectors(width=5 if index == 2 else 6)()
        opt.zero_grad()
        try:
            F.cross_entropy(net(x), y).backward()
        except RuntimeError:
            continue
        opt.step()


def _twice(session: Session) -> None:
    session.wrap(session.wrap(mlp()))


def _unwrapped_twice(session: Session) -> None:
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for _ in range(4):
        (x,), _, y = vectors()()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    if isinstance(net, DNI):
        twin = copy.deepcopy(net)
        assert twin.unwrap() is twin.unwrap()


def _other_optimizer(session: Session) -> None:
    session.wrap(mlp(), sgd(mlp()))


def _foreign_state(session: Session) -> None:
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index in range(4):
        (x,), _, y = vectors()()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        if index == 2:
            net.load_state_dict(mlp(4).state_dict())


class _Forgets(DNI_Network):
    """A synthesizer that returns its prediction alone."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, **kwargs: Any) -> None:
        super().__init__(input_size, hidden_size, output_size, **kwargs)
        self.layer = nn.Linear(input_size, output_size)

    def forward(self, input: Tensor, hidden: Any) -> Any:
        return self.layer(input)


def _one_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(6, CLASSES))


def _text(*_: Any) -> str:
    return "linear"


def _refused(name: str, run: Callable[[Session], None], message: str) -> Row:
    return Row(name, run, expected=Refused(message))


def _raises(name: str, module: nn.Module, output: Tensor) -> nn.Module:
    raise KeyError("width")


LABELS = {"context_size": CLASSES, "dni_network": Linear_DNI}

ROWS = [
    Row("NaN in the input", _number(math.nan)),
    Row("infinite input", _number(math.inf)),
    Row("input of a wrong shape", _shape, expected=PyTorchError("mat1 and mat2 shapes")),
    Row("input of a wrong shape, caught", _survived_shape),
    _refused("`layers` matches nothing", _wrapped(layers="block.*"), "or matches, 'block.*'"),
    _refused("more parts than places", _wrapped(layers=9), "cut into 3 parts at most"),
    _refused("no layer to cut at", _wrapped(_one_layer), "finds no place to cut"),
    _refused("wrapped twice", _twice, "is wrapped in DNI already"),
    Row("unwrapped twice", _unwrapped_twice),
    _refused("optimizer of another network", _other_optimizer, "holds no parameter"),
    _refused("`dni_network` raises", _wrapped(dni_network=_raises), "raised KeyError for '2'"),
    _refused("`dni_network` returns no module", _wrapped(dni_network=_text), "returned a str"),
    _refused("synthesizer without `, None`", _wrapped(dni_network=_Forgets), "(output, hidden)"),
    _refused("context of a wrong length", _with_context(lambda y: y[:5], **LABELS), "(5,)"),
    _refused("labels out of range", _with_context(lambda y: y + 1, **LABELS), "labels run from"),
    _refused("missing context", _with_context(lambda y: None, **LABELS), "needs a context"),
    _refused("context that nothing takes", _with_context(lambda y: y), "but takes none"),
    Row(
        "checkpoint of another network",
        _foreign_state,
        "nothing is loaded",
        PyTorchError("Error(s) in loading state_dict for Sequential"),
    ),
]
