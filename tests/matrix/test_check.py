"""The checker fails where a row does something else than is expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, DNIError
from tests.matrix.check import check
from tests.matrix.row import PyTorchError, Refused, Row, WAYS, Works
from tests.matrix.session import Session
from tests.matrix.training import mlp, sgd, vectors


def run_with(
    before: Callable[[Any, nn.Module], None] = lambda net, network: None,
    after: Callable[[Any, nn.Module], None] = lambda net, network: None,
    passes: int = 4,
    **options: Any,
) -> Callable[[Session], None]:
    """Return a run that does something before each pass, and after all."""

    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        net = session.wrap(network, opt, **options)
        for _ in range(passes):
            (x,), _, y = vectors()()
            before(net, network)
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
        after(net, network)

    return run


def is_wrapped(net: Any) -> bool:
    return isinstance(net, DNI)


def scale_weights(net: Any, network: nn.Module) -> None:
    if is_wrapped(net):
        with torch.no_grad():
            network[0].weight.mul_(1.001)


def leave_hook(net: Any, network: nn.Module) -> None:
    if is_wrapped(net):
        network[0].register_forward_hook(lambda *call: None)


def leave_attribute(net: Any, network: nn.Module) -> None:
    if is_wrapped(net):
        network[0].mark = 1


def stop_learning(net: Any, network: nn.Module) -> None:
    """Let the first layer learn in exact steps alone."""
    if is_wrapped(net) and net.stats():
        network[0].weight.requires_grad_(net._rooms.policy.current_lambda() == 1)


def change_then_refuse(net: Any, network: nn.Module) -> None:
    with torch.no_grad():
        network[0].bias.add_(1)
    raise DNIError("refused")


def draw_then_refuse(net: Any, network: nn.Module) -> None:
    torch.randn(1)
    raise DNIError("refused")


LIES = {
    "exact": Row("r", run_with(before=scale_weights)),
    "hooks": Row("r", run_with(after=leave_hook)),
    "attributes": Row("r", run_with(after=leave_attribute)),
    "learns": Row("r", run_with(before=stop_learning)),
    "passes": Row("r", run_with(passes=2)),
    "not refused": Row("r", run_with(), expected=Refused("anything")),
    "another message": Row("r", run_with(layers="none"), expected=Refused("anything")),
    "another remedy": Row(
        "r", run_with(layers="none"), expected=Refused("is called", {"layers": "none"})
    ),
    "refused": Row("r", run_with(layers="none"), expected=Works()),
    "changed": Row("r", run_with(before=change_then_refuse), expected=Refused("refused")),
    "drawn": Row("r", run_with(before=draw_then_refuse), expected=Refused("refused")),
    "no error": Row("r", run_with(), expected=PyTorchError("anything")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_true_row_passes(way: str, tmp_path: Path) -> None:
    check(Row("r", run_with()), way, tmp_path)
    check(Row("r", run_with(layers="none"), expected=Refused("is called")), way, tmp_path)


@pytest.mark.parametrize("lie", LIES)
def test_a_row_that_is_not_as_expected_fails(lie: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, DNIError)):
        check(LIES[lie], "default", tmp_path)
