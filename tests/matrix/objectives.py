"""Losses of several passes, of several networks, and on tensors from inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import AROUND, Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import batches, CLASSES, mlp, sgd, simple, steps, vectors


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


TWICE = Refused("(create_graph=True) cannot be differentiated again", in_backward=True)
PENALTY = Refused(TWICE.message, instead={"bp_lambda": 1.0}, in_backward=True)
INSIDE = "the backward pass entered the network at a tensor from inside"

ROWS = [
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
]
