"""Features of PyTorch inside of a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.matrix.row import REENTRANT, Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, images, loop, mlp, sgd, steps, train, vectors


def _built(change: Callable[[nn.Sequential], Any], **shape: Any) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        network = mlp(**shape)
        change(network)
        train(session, network)

    return run


def _spectral(network: nn.Sequential) -> None:
    for index in (0, 3):
        nn.utils.parametrizations.spectral_norm(network[index])


def _weight_norm(network: nn.Sequential) -> None:
    for index in (0, 3):
        nn.utils.parametrizations.weight_norm(network[index])


class _LowRank(nn.Module):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.left = nn.Parameter(0.1 * torch.randn(rows, 2))
        self.right = nn.Parameter(0.1 * torch.randn(2, columns))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.left @ self.right


def _low_rank(network: nn.Sequential) -> None:
    for index in (0, 3):
        rows, columns = network[index].weight.shape
        nn.utils.parametrize.register_parametrization(
            network[index], "weight", _LowRank(rows, columns)
        )
        network[index].parametrizations.weight.original.requires_grad_(False)


def _pruned(network: nn.Sequential) -> None:
    from torch.nn.utils import prune

    for index in (0, 3):
        prune.l1_unstructured(network[index], "weight", 0.3)


def _quantised(session: Session) -> None:
    """Quantisation-aware training: fake quantisation of weights and activations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization

        network = mlp(normalised=False)
        network.qconfig = quantization.get_default_qat_qconfig("x86")
        network = quantization.prepare_qat(network)
        train(session, network)


def _lazy(session: Session) -> None:
    layers = [nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES)]
    network = nn.Sequential(*layers)
    net = session.wrap(network)
    (x,), _, y = vectors()()
    F.cross_entropy(net(x), y).backward()
    loop(net, sgd(network))


def _meta(session: Session) -> None:
    with torch.device("meta"):
        network = mlp(normalised=False)
    net = session.wrap(network)
    network.to_empty(device="cpu")
    for module in network:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    loop(net, sgd(network))


def _scripted(session: Session) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.script(mlp(normalised=False))
        train(session, network)


def _scripted_part(session: Session) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), part, nn.Linear(8, CLASSES))
        train(session, network)


class _Checkpointed(nn.Module):
    """Two parts under ``torch.utils.checkpoint``, each with cuts in it."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, CLASSES)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()) for _ in range(2)
        )
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.parts:
            x = checkpoint(part, x, use_reentrant=self.reentrant)
        return self.head(x)


class _Returns(nn.Module):
    """Returns the class scores of a network in an object."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.make = mlp(normalised=False), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.body(x))


class _Answer:
    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


class _Hidden:
    __slots__ = ("read",)

    def __init__(self, scores: Tensor) -> None:
        self.read = lambda: scores


def _returns(make: Callable[[Tensor], Any], loss: Callable[..., Tensor]) -> Any:
    return steps(lambda: _Returns(make), vectors(), loss)


def _complex(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out.abs(), y)


class _Skips(nn.Module):
    """Leaves a block out in every third pass, the first included (stochastic depth)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.calls % 3 == 1:
                return self.head(x)
        return self.head(self.block(x))


class _Shared(nn.Module):
    """One layer that runs three times, and weights tied between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.loop = nn.Linear(6, 8), nn.Linear(8, 8)
        self.other, self.head = nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.other.weight = self.loop.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for _ in range(3):
            x = torch.tanh(self.loop(x))
        return self.head(torch.tanh(self.other(x)))


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.second(F.relu_(self.first(x)))))


def _inplace() -> nn.Sequential:
    network = mlp()
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network


def _convolutions(memory: torch.memory_format = torch.contiguous_format) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    layers += [nn.Dropout2d(0.2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, CLASSES)).to(memory_format=memory)


def _sparse() -> nn.Module:
    return nn.Sequential(
        nn.EmbeddingBag(20, 8, sparse=True), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    )


def _bags() -> Any:
    return (torch.randint(0, 20, (8, 5)),), {}, torch.randint(0, CLASSES, (8,))


HIDDEN = Refused("If the output hides its tensors in an object", in_backward=True)

ROWS = [
    Row("spectral norm", _built(_spectral, normalised=True)),
    Row("weight norm", _built(_weight_norm)),
    Row("low-rank parametrization (LoRA)", _built(_low_rank)),
    Row("pruning", _built(_pruned)),
    Row("quantisation-aware training", _quantised),
    Row("lazy layers", _lazy),
    Row("meta device, then `to_empty`", _meta),
    Row("`torch.jit.script` of the network", _scripted, expected=Refused("ScriptModule")),
    Row("`torch.jit.script` of a part", _scripted_part),
    Row(
        "checkpoints, `use_reentrant=False`",
        steps(lambda: _Checkpointed(False), vectors(5), passes=6),
    ),
    Row(
        "checkpoints, `use_reentrant=True`",
        steps(lambda: _Checkpointed(True), vectors(5)),
        "the cuts are inside of the checkpoints",
        expected={"exact every": REENTRANT},
    ),
    Row(
        "returns a distribution",
        _returns(
            lambda s: torch.distributions.Categorical(logits=s),
            lambda out, y: -out.log_prob(y).mean(),
        ),
    ),
    Row(
        "returns an object of its own class",
        _returns(_Answer, lambda out, y: F.cross_entropy(out.scores, y)),
    ),
    Row("returns a complex tensor", _returns(lambda s: torch.complex(s, 1 - s), _complex)),
    Row(
        "returns tensors hidden in a closure",
        _returns(_Hidden, lambda out, y: F.cross_entropy(out.read(), y)),
        expected={"eager": HIDDEN},
    ),
    Row(
        "returns `(scores, hidden)`",
        _returns(lambda s: (s, s.softmax(1)), lambda out, y: F.cross_entropy(out[0], y)),
    ),
    Row("a block that the first pass skips", steps(_Skips, vectors(), passes=12)),
    Row(
        "shared layers and weights",
        steps(_Shared, vectors()),
        expected={
            "eager": Refused("leave its module out of layers", {"layers": ["stem", "other"]})
        },
    ),
    Row("activation functions without modules", steps(_Functional, vectors())),
    Row("activation functions in place", steps(_inplace, vectors())),
    Row("convolutions, dropout", steps(_convolutions, images(12))),
    Row("channels last", steps(lambda: _convolutions(torch.channels_last), images(12))),
    Row("sparse gradients of an embedding", steps(_sparse, _bags)),
]
