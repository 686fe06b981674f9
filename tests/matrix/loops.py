"""Training loops that people write."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import batches, CLASSES, mlp, sgd, simple


def _zero_between(net: Any, opt: torch.optim.Optimizer) -> None:
    for x, y in batches():
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()


def _zero_last(net: Any, opt: torch.optim.Optimizer) -> None:
    for x, y in batches():
        F.cross_entropy(net(x), y).backward()
        opt.step()
        opt.zero_grad(set_to_none=False)


def _accumulate(net: Any, opt: torch.optim.Optimizer) -> None:
    for index, (x, y) in enumerate(batches(6)):
        (F.cross_entropy(net(x), y) / 2).backward()
        if index % 2:
            opt.step()
            opt.zero_grad()


def _clip(net: Any, opt: torch.optim.Optimizer) -> None:
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()


def _schedule(net: Any, opt: torch.optim.Optimizer) -> None:
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 8)
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        schedule.step()


def _lbfgs(net: Any, _: torch.optim.Optimizer) -> None:
    opt = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3, tolerance_grad=0)
    for x, y in batches(2):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        opt.step(closure)


def _sam(net: Any, opt: torch.optim.Optimizer) -> None:
    """Sharpness-aware minimisation: the gradient at weights that were moved along the first."""
    for x, y in batches(2):
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        moves = [0.05 * p.grad / (p.grad.norm() + 1e-6) for p in net.parameters()]
        with torch.no_grad():
            for p, move in zip(net.parameters(), moves, strict=True):
                p.add_(move)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for p, move in zip(net.parameters(), moves, strict=True):
                p.sub_(move)
        opt.step()


def _swa(net: Any, opt: torch.optim.Optimizer) -> None:
    from torch.optim.swa_utils import AveragedModel

    mean = AveragedModel(net, use_buffers=True)
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        mean.update_parameters(net)
    mean.eval()
    assert mean(x).isfinite().all()
    mean.load_state_dict(copy.deepcopy(mean.state_dict()))


def _ema(net: Any, opt: torch.optim.Optimizer) -> None:
    mean = copy.deepcopy(net)
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        with torch.no_grad():
            for ours, theirs in zip(mean.parameters(), net.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)
    assert mean.eval()(x).isfinite().all()


def _scaler(net: Any, opt: torch.optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for x, y in batches():
        opt.zero_grad()
        scaler.scale(F.cross_entropy(net(x), y)).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()


def _autocast(net: Any, opt: torch.optim.Optimizer) -> None:
    for x, y in batches():
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        F.cross_entropy(out.float(), y).backward()
        opt.step()


def _two_optimizers(session: Session) -> None:
    network = mlp()
    first = torch.optim.SGD(network[:3].parameters(), lr=0.1)
    second = torch.optim.Adam(network[3:].parameters(), lr=0.01)
    net = session.wrap(network, first)
    for x, y in batches():
        first.zero_grad()
        second.zero_grad()
        F.cross_entropy(net(x), y).backward()
        first.step()
        second.step()


def _optimizer_in_backward(session: Session) -> None:
    network = mlp()
    for parameter in network.parameters():
        opt = torch.optim.SGD([parameter], lr=0.1)

        def step(p: Tensor, opt: torch.optim.Optimizer = opt) -> None:
            opt.step()
            opt.zero_grad()

        parameter.register_post_accumulate_grad_hook(step)
    net = session.wrap(network)
    for x, y in batches():
        F.cross_entropy(net(x), y).backward()


def _frozen(session: Session) -> None:
    network = mlp(4)
    network[0].requires_grad_(False)
    network[3].requires_grad_(False)
    opt = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    net = session.wrap(network, opt)
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def _thawed(net: Any, opt: torch.optim.Optimizer) -> None:
    for index, (x, y) in enumerate(batches(6)):
        net[0].requires_grad_(index not in (2, 3))
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def _evaluated(net: Any, opt: torch.optim.Optimizer) -> None:
    """Evaluation between steps, with and without ``no_grad``."""
    for x, y in batches():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        net.eval()
        with torch.no_grad():
            assert net(x).isfinite().all()
        with torch.inference_mode():
            assert net(x).isfinite().all()
        net.train()


def _resumed(session: Session) -> None:
    """Saved after two steps, and loaded into the same network before two more."""
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index, (x, y) in enumerate(batches()):
        if index == 2:
            saved = copy.deepcopy((net.state_dict(), opt.state_dict()))
            torch.save(saved, session.folder / "saved.pt")
            loaded = torch.load(session.folder / "saved.pt", weights_only=True)
            net.load_state_dict(loaded[0])
            opt.load_state_dict(loaded[1])
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def _windows(session: Session) -> None:
    """Truncated backpropagation: the state of a window is carried to the next, detached."""
    from tests.matrix.language import Carried

    network = Carried()
    opt = sgd(network)
    net = session.wrap(network, opt)
    state = None
    for _ in range(4):
        x, y = torch.randint(0, 20, (4, 6)), torch.randint(0, CLASSES, (4, 6))
        opt.zero_grad()
        out, state = net(x, state)
        F.cross_entropy(out.flatten(0, 1), y.flatten()).backward()
        opt.step()
        state = tuple(s.detach() for s in state)


ROWS = [
    Row("`zero_grad` between forward and backward pass", simple(_zero_between)),
    Row("`zero_grad` at the end", simple(_zero_last)),
    Row("gradient accumulation", simple(_accumulate)),
    Row("gradient clipping", simple(_clip)),
    Row("learning rate schedule", simple(_schedule)),
    Row("LBFGS", simple(_lbfgs)),
    Row("SAM (two passes a step)", simple(_sam)),
    Row("SWA (`AveragedModel`)", simple(_swa)),
    Row("EMA (`deepcopy`, `lerp_`)", simple(_ema)),
    Row("`GradScaler`", simple(_scaler)),
    Row("autocast to bfloat16", simple(_autocast)),
    Row("two optimizers", _two_optimizers),
    Row("optimizer steps in the backward pass", _optimizer_in_backward),
    Row("frozen layers", _frozen),
    Row("layers frozen and thawed", simple(_thawed)),
    Row("evaluation between steps", simple(_evaluated)),
    Row("save and load", _resumed),
    Row(
        "windows of an LSTM",
        _windows,
        "cut in time, at the state that a window passes on",
        expected={
            "eager": Refused("eager takes unlock='update' and cuts in space", {"recurrent": False}),
            "exact every": Refused(
                "exact_every takes cuts in space", {"recurrent": False, "unlock": "update"}
            ),
        },
    ),
]
