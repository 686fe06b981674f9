"""Training loops that people write, and those of other packages."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import AROUND, PyTorchError, Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, mlp, sgd, steps, vectors


def batches(count: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches of vectors and labels."""
    for _ in range(count):
        (x,), _, y = vectors()()
        yield x, y


def simple(loop: Callable[[Any, torch.optim.Optimizer], None]) -> Callable[[Session], None]:
    """Return the run of a loop that trains one classifier."""

    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        loop(session.wrap(network, opt), opt)

    return run


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


def _gan(session: Session) -> None:
    """Both networks are wrapped; the generator learns through the discriminator."""
    maker = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 6))
    judge = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    optimizers = sgd(maker), sgd(judge)
    makes, judges = session.wrap(maker, optimizers[0]), session.wrap(judge, optimizers[1])
    ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
    loss = F.binary_cross_entropy_with_logits
    for _ in range(4):
        real, fake = torch.randn(8, 6), makes(torch.randn(8, 4))
        optimizers[1].zero_grad()
        (loss(judges(real), ones) + loss(judges(fake.detach()), zeros)).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        loss(judges(fake), ones).backward()
        optimizers[0].step()


def _siamese(net: Any, opt: torch.optim.Optimizer) -> None:
    for (one, _), (two, _), (far, _) in zip(batches(), batches(), batches(), strict=True):
        opt.zero_grad()
        F.triplet_margin_loss(net(one), net(two), net(far)).backward()
        opt.step()


def _policy_gradient(net: Any, opt: torch.optim.Optimizer) -> None:
    """Several forward passes of an episode, and one backward pass through all of them."""
    for _ in range(4):
        terms = []
        for x, _ in batches(3):
            chosen = torch.distributions.Categorical(logits=net(x))
            action = chosen.sample()
            terms.append((-chosen.log_prob(action) * (action - 1.5)).mean())
        opt.zero_grad()
        sum(terms, torch.tensor(0.0)).backward()
        opt.step()


def _two_losses(net: Any, opt: torch.optim.Optimizer) -> None:
    """Two backward passes through one graph."""
    for x, y in batches():
        opt.zero_grad()
        out = net(x)
        F.cross_entropy(out, y).backward(retain_graph=True)
        (0.1 * out.square().mean()).backward()
        opt.step()


def _penalty(session: Session) -> None:
    """The gradient with respect to the input is part of every second loss (WGAN-GP)."""
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index, (x, _) in enumerate(batches()):
        opt.zero_grad()
        out = net(x.requires_grad_()).mean()
        loss = out
        if index % 2:
            (grad,) = torch.autograd.grad(out, x, create_graph=True)
            loss = out + grad.norm(dim=1).sub(1).square().mean()
        loss.backward()
        opt.step()


def _saliency(net: Any, opt: torch.optim.Optimizer) -> None:
    """The gradient with respect to the input is read in evaluation, between steps of training."""
    for x, y in batches():
        net.eval()
        seen = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(net(seen).sum(), seen)
        assert grad.abs().sum() > 0
        net.train()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def _meta_learning(net: Any, opt: torch.optim.Optimizer) -> None:
    """Reptile: weights move towards those that some steps on a task lead to."""
    for _ in range(2):
        before = [p.detach().clone() for p in net.parameters()]
        for x, y in batches(2):
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
        with torch.no_grad():
            for p, old in zip(net.parameters(), before, strict=True):
                p.copy_(old.lerp(p, 0.5))


class _Distilled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(4)
        self.hidden: Tensor | None = None
        self.body[5].register_forward_hook(self._store)

    def _store(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.hidden = output

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _distillation(session: Session) -> None:
    """A loss on a tensor from inside, which a hook has stored, and one on the output."""
    network = _Distilled()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for x, y in batches():
        opt.zero_grad()
        out = net(x)
        assert network.hidden is not None
        (F.cross_entropy(out, y) + 0.1 * network.hidden.square().mean()).backward()
        opt.step()
    network.hidden = None


class _Quantised(nn.Module):
    """Returns the class scores and the loss of a code book (VQ)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.codes = nn.Embedding(5, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        code = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        loss = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())
        return self.decoder(z + (code - z).detach()), loss


def _nan_loss(net: Any, opt: torch.optim.Optimizer) -> None:
    """A loss of NaN in the second step, which is left out, as people do."""
    for index, (x, y) in enumerate(batches(6)):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y) * (math.nan if index == 1 else 1.0)
        loss.backward()
        if loss.isfinite():
            opt.step()


class _StopError(Exception):
    pass


def _stop(*_: Any) -> None:
    raise _StopError


def _stop_in_backward(module: nn.Module, args: Any, output: Tensor) -> None:
    output.register_hook(_stop)


def _interrupted(session: Session) -> None:
    """Exceptions in the forward pass and in the backward pass, and training on."""
    network = mlp(normalised=False)
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index, (x, y) in enumerate(batches(8)):
        opt.zero_grad()
        handle = None
        if index in (2, 4):
            hook = _stop if index == 2 else _stop_in_backward
            handle = network[2].register_forward_hook(hook)
        try:
            F.cross_entropy(net(x), y).backward()
            opt.step()
        except _StopError:
            pass
        if handle is not None:
            handle.remove()


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


def _batch(size: int, dtype: torch.dtype = torch.float32, normalised: bool = True) -> Any:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out.float(), y, reduction="sum")

    return steps(
        lambda: mlp(normalised=normalised).to(dtype), vectors(size, dtype=dtype), loss
    )


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


TWICE = Refused("(create_graph=True) cannot be differentiated again", in_backward=True)
PENALTY = Refused(TWICE.message, instead={"bp_lambda": 1.0}, in_backward=True)
INSIDE = "the backward pass entered the network at a tensor from inside"

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
    Row("GAN", _gan),
    Row("siamese network", simple(_siamese)),
    Row("policy gradient", simple(_policy_gradient)),
    Row(
        "two backward passes, `retain_graph=True`",
        simple(_two_losses),
        expected={"eager": Refused("have been delivered already", in_backward=True)},
    ),
    Row(
        "gradient penalty, `create_graph=True`",
        _penalty,
        "second derivatives of true gradients alone",
        expected={**dict.fromkeys(("default", "update", "eager"), PENALTY), "exact every": TWICE},
    ),
    Row("saliency between steps", simple(_saliency)),
    Row("Reptile", simple(_meta_learning)),
    Row(
        "distillation from a hook",
        _distillation,
        "a loss on a tensor from inside, and one on the output",
        expected={"eager": Refused(INSIDE, instead={"layers": "body.2"}, in_backward=True)},
    ),
    Row(
        "VQ",
        steps(_Quantised, vectors(), lambda out, y: F.cross_entropy(out[0], y) + out[1]),
        expected={"eager": Refused(AROUND, instead={"layers": "encoder.1"})},
    ),
    Row("NaN loss", simple(_nan_loss)),
    Row("exceptions in the middle", _interrupted),
    Row("evaluation between steps", simple(_evaluated)),
    Row("batch of 0", _batch(0, normalised=False)),
    Row("batch of 1", _batch(1, normalised=False)),
    Row(
        "batch of 1, BatchNorm",
        _batch(1),
        expected=PyTorchError("Expected more than 1 value per channel when training"),
    ),
    Row("half", _batch(8, torch.float16)),
    Row("bfloat16", _batch(8, torch.bfloat16)),
    Row("double", _batch(8, torch.float64)),
    Row("save and load", _resumed),
    Row(
        "windows of an LSTM",
        _windows,
        "cut in time, at the state that a window passes on",
        expected={
            "eager": Refused("eager takes unlock='update' and cuts in space", {"recurrent": False}),
            "exact every": Refused("exact_every takes cuts in space", {"recurrent": False}),
        },
    ),
]
