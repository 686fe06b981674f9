"""Ways to call, copy, save and convert a network."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, loop, mlp, sgd, train, vectors


def _functional_call(session: Session) -> None:
    network = mlp(normalised=False)
    opt = sgd(network)
    net = session.wrap(network, opt)
    for _ in range(4):
        (x,), _, y = vectors()()
        opt.zero_grad()
        values = {name: p * 1.0 for name, p in net.named_parameters()}
        F.cross_entropy(torch.func.functional_call(net, values, (x,)), y).backward()
        opt.step()


def _func_grad(session: Session) -> None:
    network = mlp(normalised=False)
    net = session.wrap(network)
    values = dict(net.named_parameters())
    for _ in range(4):
        (x,), _, y = vectors()()

        def loss(values: Any, x: Tensor = x, y: Tensor = y) -> Tensor:
            return F.cross_entropy(torch.func.functional_call(net, values, (x,)), y)

        grads = torch.func.grad(loss)(values)
        with torch.no_grad():
            for name, value in values.items():
                value.sub_(0.1 * grads[name])


def _vmap(session: Session) -> None:
    network = mlp(normalised=False)
    net = session.wrap(network)
    for _ in range(4):
        torch.func.vmap(net)(torch.randn(8, 6)).sum().backward()


def _jvp(session: Session) -> None:
    from torch.autograd import forward_ad

    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    opt = sgd(network)
    net = session.wrap(network, opt)
    for _ in range(4):
        opt.zero_grad()
        with forward_ad.dual_level():
            out = net(forward_ad.make_dual(torch.randn(8, 6), torch.randn(8, 6)))
            primal, tangent = forward_ad.unpack_dual(out)
            assert tangent is not None
            primal.square().mean().backward()
        opt.step()


def _compiled(around: bool) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        torch.compiler.reset()  # compiled code is not guarded on hooks
        network = mlp()
        opt = sgd(network)
        if around:
            net = torch.compile(session.wrap(network, opt), backend="eager")
        else:
            network.compile(backend="eager")
            net = session.wrap(network, opt)
        loop(net, opt)

    return run


def _own_compile(session: Session) -> None:
    network = nn.Sequential(mlp(), nn.Sequential(nn.ReLU(), nn.Linear(CLASSES, CLASSES)))
    opt = sgd(network)
    net = session.wrap(network, opt, layers="0")
    if net is not network:
        net.compile(backend="eager")
    loop(net, opt)


def _hooked(full_backward: bool, name: str = "1") -> Callable[[Session], None]:
    def run(session: Session) -> None:
        network = mlp(normalised=False)
        calls: list[int] = []

        def note(*_: Any) -> None:
            calls.append(1)

        if full_backward:
            network.get_submodule(name).register_full_backward_hook(note)
        else:
            network.get_submodule(name).register_forward_hook(note)
            network[0].weight.register_hook(note)
        train(session, network, layers=["1", "3"])
        assert len(calls) >= 4

    return run


def _copied(session: Session) -> None:
    """A copy and a pickle train on; the network that was copied is trained too."""
    net = train(session, mlp())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        loop(other, sgd(other), passes=2)


def _moved(session: Session) -> None:
    """Converted to double after the first steps."""
    network = mlp()
    net = session.wrap(network)
    loop(net, sgd(network))
    net.double()
    loop(net, sgd(network), lambda: vectors(dtype=torch.float64)())


def _anomaly(session: Session) -> None:
    with torch.autograd.detect_anomaly(check_nan=True):
        train(session, mlp())


def _distributed_checkpoint(session: Session) -> None:
    import torch.distributed.checkpoint as dcp

    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    loop(net, opt, passes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(net.state_dict(), checkpoint_id=session.folder / "distributed")
        state = net.state_dict()
        dcp.load(state, checkpoint_id=session.folder / "distributed")
    net.load_state_dict(state)
    loop(net, opt, passes=2)


def _saved_whole(session: Session) -> None:
    net = train(session, mlp())
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    x = torch.randn(8, 6)
    assert torch.equal(loaded.eval()(x), net.eval()(x))
    net.train()


TRANSFORM = Refused("a transform of torch.func")

ROWS = [
    Row("`functional_call`", _functional_call),
    Row("`torch.func.grad` in training", _func_grad, "works in `eval()`", TRANSFORM),
    Row("`torch.func.vmap` in training", _vmap, "works in `eval()`", TRANSFORM),
    Row(
        "forward-mode differentiation",
        _jvp,
        "works in `eval()`",
        expected=dict.fromkeys(("eager", "exact every"), Refused("no tangent passes a cut")),
    ),
    Row("`torch.compile(DNI(network))`", _compiled(True), slow=True),
    Row("`DNI(network)` after `network.compile()`", _compiled(False), slow=True),
    Row("`DNI(network).compile()`", _own_compile, slow=True),
    Row("forward hooks, hooks on parameters", _hooked(False)),
    Row(
        "full backward hook at a cut",
        _hooked(True, "1"),
        expected=dict.fromkeys(("eager", "exact every"), Refused("has a full backward hook")),
    ),
    Row("full backward hook between cuts", _hooked(True, "2")),
    Row("`deepcopy` and `pickle`", _copied),
    Row("`torch.save(net)`", _saved_whole),
    Row("`double()` after some steps", _moved),
    Row("`detect_anomaly`", _anomaly),
    Row("distributed checkpoint", _distributed_checkpoint),
]
