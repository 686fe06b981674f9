"""Features of PyTorch around a network and inside of it."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.matrix.row import PyTorchError, Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, images, mlp, sgd, steps, vectors


def train(session: Session, network: nn.Module, batch: Any = None, **options: Any) -> Any:
    """Train a classifier in the usual loop, and return what the session has made of it."""
    opt = sgd(network)
    net = session.wrap(network, opt, **options)
    _loop(net, opt, batch)
    return net


def _loop(net: Any, opt: torch.optim.Optimizer, batch: Any = None, passes: int = 4) -> None:
    for _ in range(passes):
        (x,), _, y = (batch or vectors())()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


# Several processes.


def _rank_batch() -> Any:
    (x,), kwargs, y = vectors(16)()
    rank = distributed.get_rank()
    return (x[rank::2],), kwargs, y[rank::2]


def _ddp_inside(search: bool) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        from torch.nn.parallel import DistributedDataParallel

        network = DistributedDataParallel(mlp(normalised=False), find_unused_parameters=search)
        train(session, network, _rank_batch)

    return run


def _ddp_around(session: Session) -> None:
    from torch.nn.parallel import DistributedDataParallel

    network = mlp(normalised=False)
    opt = sgd(network)
    net = DistributedDataParallel(session.wrap(network, opt))
    _loop(net, opt, _rank_batch)


def _fsdp_inside(session: Session) -> None:
    from torch.distributed.fsdp import fully_shard

    network = mlp(normalised=False)
    for module in network:
        if isinstance(module, nn.Linear):
            fully_shard(module)
    fully_shard(network)
    train(session, network, _rank_batch)


def _fsdp_around(session: Session) -> None:
    from torch.distributed.fsdp import fully_shard

    network = mlp(normalised=False)
    net = session.wrap(network)
    for module in network:
        if isinstance(module, nn.Linear):
            fully_shard(module)
    fully_shard(net)
    _loop(net, sgd(network), _rank_batch)


def _data_parallel(inside: bool, devices: list[int]) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        if inside:
            parallel = nn.DataParallel(network)
            parallel.device_ids = devices
            _loop(session.wrap(parallel, opt), opt)
        else:
            _loop(nn.DataParallel(session.wrap(network, opt)), opt)

    return run


def _threads(session: Session) -> None:
    """Two threads whose forward passes overlap."""
    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    inside, done = threading.Event(), threading.Event()
    main = threading.get_ident()

    def wait(*_: Any) -> None:
        if threading.get_ident() != main:
            inside.set()
            done.wait(10)

    handle = network[0].register_forward_pre_hook(wait)
    other = threading.Thread(target=lambda: net.network(torch.randn(8, 6)))
    for _ in range(4):
        (x,), _, y = vectors()()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    handle.remove()
    del other


# Ways to call.


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
        _loop(net, opt)

    return run


def _own_compile(session: Session) -> None:
    network = nn.Sequential(mlp(), nn.Sequential(nn.ReLU(), nn.Linear(CLASSES, CLASSES)))
    opt = sgd(network)
    net = session.wrap(network, opt, layers="0")
    if net is not network:
        net.compile(backend="eager")
    _loop(net, opt)


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
        train(session, network, layers=["1", "2"])
        assert len(calls) >= 4

    return run


def _copied(session: Session) -> None:
    """A copy and a pickle train on; the network that was copied is trained too."""
    net = train(session, mlp())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        _loop(other, sgd(other), passes=2)


def _moved(session: Session) -> None:
    """Converted to double after the first steps."""
    network = mlp()
    net = session.wrap(network)
    _loop(net, sgd(network))
    net.double()
    _loop(net, sgd(network), lambda: vectors(dtype=torch.float64)())


def _anomaly(session: Session) -> None:
    with torch.autograd.detect_anomaly(check_nan=True):
        train(session, mlp())


def _distributed_checkpoint(session: Session) -> None:
    import torch.distributed.checkpoint as dcp

    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    _loop(net, opt, passes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(net.state_dict(), checkpoint_id=session.folder / "distributed")
        state = net.state_dict()
        dcp.load(state, checkpoint_id=session.folder / "distributed")
    net.load_state_dict(state)
    _loop(net, opt, passes=2)


def _saved_whole(session: Session) -> None:
    net = train(session, mlp())
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    x = torch.randn(8, 6)
    assert torch.equal(loaded.eval()(x), net.eval()(x))
    net.train()


# Inside of a network.


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
    _loop(net, sgd(network))


def _meta(session: Session) -> None:
    with torch.device("meta"):
        network = mlp(normalised=False)
    net = session.wrap(network)
    network.to_empty(device="cpu")
    for module in network:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    _loop(net, sgd(network))


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
    """Leaves a block out in every second pass, the first included (stochastic depth)."""

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
            if self.calls % 2:
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


TRANSFORM = Refused("a transform of torch.func")
HIDDEN = Refused("If the output hides its tensors in an object", in_backward=True)

ROWS = [
    Row("`DNI(DistributedDataParallel(network))`", _ddp_inside(False), ranks=2, slow=True),
    Row("the same, `find_unused_parameters=True`", _ddp_inside(True), ranks=2, slow=True),
    Row("`DistributedDataParallel(DNI(network))`", _ddp_around, ranks=2, slow=True),
    Row("`DNI(fully_shard(network))` (FSDP2)", _fsdp_inside, ranks=2, slow=True),
    Row("`fully_shard(DNI(network))` (FSDP2)", _fsdp_around, ranks=2, slow=True),
    Row("`DNI(DataParallel(network))`, one device or none", _data_parallel(True, [])),
    Row("`DataParallel(DNI(network))`, one device or none", _data_parallel(False, [])),
    Row(
        "`DNI(DataParallel(network))`, several devices",
        _data_parallel(True, [0, 1]),
        expected=Refused("take DistributedDataParallel"),
    ),
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
    Row("full backward hook between cuts", _hooked(True, "3")),
    Row("`deepcopy` and `pickle`", _copied),
    Row("`torch.save(net)`", _saved_whole),
    Row("`double()` after some steps", _moved),
    Row("`detect_anomaly`", _anomaly),
    Row("distributed checkpoint", _distributed_checkpoint),
    Row("spectral norm", _built(_spectral, normalised=True)),
    Row("weight norm", _built(_weight_norm)),
    Row("low-rank parametrization (LoRA)", _built(_low_rank)),
    Row("pruning", _built(_pruned)),
    Row("quantisation-aware training", _quantised),
    Row("lazy layers", _lazy),
    Row("meta device, then `to_empty`", _meta),
    Row("`torch.jit.script` of the network", _scripted, expected=Refused("ScriptModule")),
    Row("`torch.jit.script` of a part", _scripted_part),
    Row("checkpoints, `use_reentrant=False`", steps(lambda: _Checkpointed(False), vectors(5), passes=6)),
    Row(
        "checkpoints, `use_reentrant=True`",
        steps(lambda: _Checkpointed(True), vectors(5)),
        expected=dict.fromkeys(("exact every",), Refused("give torch.utils.checkpoint use_reentrant=False")),
    ),
    Row("returns a distribution", _returns(lambda s: torch.distributions.Categorical(logits=s), lambda out, y: -out.log_prob(y).mean())),
    Row("returns an object of its own class", _returns(_Answer, lambda out, y: F.cross_entropy(out.scores, y))),
    Row("returns a complex tensor", _returns(lambda s: torch.complex(s, 1 - s), _complex)),
    Row(
        "returns tensors hidden in a closure",
        _returns(_Hidden, lambda out, y: F.cross_entropy(out.read(), y)),
        expected=dict.fromkeys(("eager", "exact every"), HIDDEN),
    ),
    Row("returns `(scores, hidden)`", _returns(lambda s: (s, s.softmax(1)), lambda out, y: F.cross_entropy(out[0], y))),
    Row("a block that the first pass skips", steps(_Skips, vectors(), passes=12)),
    Row(
        "shared layers and weights",
        steps(_Shared, vectors()),
        expected={"eager": Refused("leave its module out of layers", {"layers": ["stem", "other"]})},
    ),
    Row("activation functions without modules", steps(_Functional, vectors())),
    Row("activation functions in place", steps(_inplace, vectors())),
    Row("convolutions, dropout", steps(_convolutions, images(12))),
    Row("channels last", steps(lambda: _convolutions(torch.channels_last), images(12))),
    Row("sparse gradients of an embedding", steps(_sparse, _bags)),
]
