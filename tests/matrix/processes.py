"""Several processes or devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import distributed, nn

from tests.matrix.row import Refused, Row
from tests.matrix.session import Session
from tests.matrix.training import loop, mlp, sgd, train, vectors


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
    loop(net, opt, _rank_batch)


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
    net = nn.Sequential(net)  # the root is a module of the same class without the wrapper
    fully_shard(net)
    loop(net, sgd(network), _rank_batch)


def _data_parallel(inside: bool, devices: list[int]) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        if inside:
            parallel = nn.DataParallel(network)
            parallel.device_ids = devices
            loop(session.wrap(parallel, opt), opt)
        else:
            loop(nn.DataParallel(session.wrap(network, opt)), opt)

    return run


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
]
