"""The checker: does the same with every row, on every way."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pytorch_dni import DNIError
from tests.matrix.row import PyTorchError, Refused, Row, Way, WAYS, Works
from tests.matrix.session import copies, local, overwrite, Session, tensors_of, Trained
from tests.support.hooks import fingerprint

# Moves below this are those of rounding: a bias before BatchNorm has no gradient.
ROUNDING = 1e-5


def check(row: Row, way: str, folder: Path) -> None:
    """Raise ``AssertionError`` where a row does something else than is expected on a way."""
    # Rows and other packages import torchvision, which may not fit the installed torch.
    importlib.import_module("tasks.torchvision_import")
    expected = row.expects(way)
    if isinstance(expected, PyTorchError):
        _check_pytorch_error(row, WAYS[way], expected, folder)
        return
    if isinstance(expected, Refused):
        _check_refused(row, WAYS[way], expected, folder)
        if expected.instead is None:
            return
        expected = Works(expected.instead)
    _check_works(row, WAYS[way], expected, folder)


def _run(row: Row, options: Mapping[str, Any] | None, folder: Path) -> Session:
    session = Session(options, folder)
    torch.manual_seed(0)
    row.run(session)
    assert session.trained, "the row wraps no network"
    assert all(trained.passes >= 4 for trained in session.trained), "the row takes too few passes"
    return session


def _check_works(row: Row, way: Way, expected: Works, folder: Path) -> None:
    plain = _run(row, None, folder)
    exact = _run(row, {**way.exact, **expected.options}, folder)
    for ours, theirs in zip(exact.trained, plain.trained, strict=True):
        _assert_equal(ours, theirs)
    wrapped = _run(row, {**way.trains, **expected.options}, folder)
    for ours, theirs in zip(wrapped.trained, plain.trained, strict=True):
        _assert_learned(row, ours, theirs)
    for session in (exact, wrapped):
        for ours, theirs in zip(session.trained, plain.trained, strict=True):
            _assert_restored(ours, theirs)


def _assert_equal(ours: Trained, theirs: Trained) -> None:
    """Compare parameters, their gradients and buffers, to the bit."""
    found, wanted = tensors_of(ours.network), tensors_of(theirs.network)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        _assert_same(found[name], value, name)
    gradients = dict(ours.network.named_parameters())
    for name, parameter in theirs.network.named_parameters():
        grad = gradients[name].grad
        assert (grad is None) == (parameter.grad is None), name
        if grad is not None:
            _assert_same(local(grad), local(parameter.grad), f"gradient of {name}")


def _assert_same(found: Any, wanted: Any, name: str) -> None:
    torch.testing.assert_close(
        found, wanted, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


def _assert_learned(row: Row, ours: Trained, theirs: Trained) -> None:
    """Compare with backpropagation which parameters the last step has moved."""
    found = tensors_of(ours.network)
    if row.finite:
        assert all(value.isfinite().all() for value in found.values()), "numbers are not finite"
    assert ours.net.interfaces, "there is no cut"
    unused = [name for name, stats in ours.net.stats().items() if not stats.updates]
    assert not unused, f"no lesson at {unused}"
    if not row.learns:
        return
    for name, after in tensors_of(theirs.network).items():
        if not after.is_floating_point() or not after.numel():
            continue
        rounding = max(ROUNDING, 2 * torch.finfo(after.dtype).eps)
        if (after - theirs.before[name]).abs().max() > rounding:
            assert not torch.equal(found[name], ours.before[name]), f"{name} has not learned"


def _assert_restored(ours: Trained, theirs: Trained) -> None:
    """Unwrap a network, and compare it with the bare one that did the same."""
    ours.net.eval()
    with torch.no_grad():
        wrapped = _outputs(ours.net, ours)
    ours.net.train()
    assert ours.net.unwrap() is ours.network
    for trained in (ours, theirs):
        trained.unwatch()
    _assert_nothing_left(ours, theirs)
    assert list(ours.network.state_dict()) == list(theirs.network.state_dict())
    ours.network.eval()
    with torch.no_grad():
        bare = _outputs(ours.network, ours)
    for one, other in zip(wrapped, bare, strict=True):
        _assert_same(one, other, "output")
    ours.network.train()
    _assert_gradients_restored(ours, theirs)


def _assert_nothing_left(ours: Trained, theirs: Trained) -> None:
    """Compare types, attributes and hooks; a tool may have marked the bare network itself."""
    found, wanted = fingerprint(ours.network), fingerprint(theirs.network)
    assert found.keys() == wanted.keys()
    for name, (kind, attributes, hooks) in found.items():
        assert kind.__qualname__ == wanted[name][0].__qualname__, name  # may be made on the way
        assert {*attributes} <= {*wanted[name][1]}, name
        assert hooks == wanted[name][2], name


def _assert_gradients_restored(ours: Trained, theirs: Trained) -> None:
    """Compare gradients of the unwrapped network with those of a bare one of equal values."""
    kept, values = copies(theirs.network), tensors_of(ours.network)
    found = []
    overwrite(theirs.network, values)
    for trained in (ours, theirs):
        trained.network.train()
        trained.network.zero_grad()
        outputs = [out for out in _outputs(trained.network, ours) if out.requires_grad]
        if not outputs:
            continue
        sum((out.abs().square().sum() for out in outputs), torch.tensor(0.0)).backward()
        named = trained.network.named_parameters()
        found.append({name: p.grad for name, p in named if p.grad is not None})
        trained.network.zero_grad()
    if found:
        assert found[0].keys() == found[1].keys()
        for name, grad in found[0].items():
            _assert_same(local(grad), local(found[1][name]), f"gradient of {name}, unwrapped")
    overwrite(theirs.network, kept)


def _outputs(net: Any, trained: Trained) -> list[torch.Tensor]:
    """Return the floating-point tensors that a network returns for the input of the last pass."""
    assert trained.call is not None
    args, kwargs = trained.call
    torch.manual_seed(1)
    kept = copies(trained.network)
    leaves = pytree.tree_leaves(net(*args, **kwargs))
    overwrite(trained.network, kept)  # observers of quantisation count in evaluation too
    return [
        leaf
        for leaf in leaves
        if isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    ]


def _check_refused(row: Row, way: Way, expected: Refused, folder: Path) -> None:
    session = Session(way.trains, folder)
    error = _error(row, session)
    assert isinstance(error, DNIError), f"raised {error!r}"
    assert expected.message in str(error)
    assert session.trained, "the row wraps no network"
    for trained in reversed(session.trained):
        _assert_unchanged(trained, expected.in_backward)


def _assert_unchanged(trained: Trained, in_backward: bool) -> None:
    """Check that the error was raised before anything had changed."""
    began, ended = trained.call is not None, not trained.inside
    assert in_backward == (began and ended), "it is raised in another pass than expected"
    found = tensors_of(trained.network)
    if in_backward:
        found = {name: found[name] for name, _ in trained.network.named_parameters()}
    else:
        assert torch.equal(torch.get_rng_state(), trained.random_state), "random numbers"
        if trained.passes < 2:
            assert all(p.grad is None for p in trained.network.parameters()), "gradients"
    for name, value in found.items():
        _assert_same(value, trained.before[name], name)
    trained.unwatch()
    if trained.net is not trained.network:
        trained.net.unwrap()
    assert fingerprint(trained.network) == trained.attributes
    assert list(trained.network.state_dict()) == trained.keys


def _error(row: Row, session: Session) -> Exception | None:
    """Return what a run raises."""
    torch.manual_seed(0)
    try:
        row.run(session)
    except Exception as error:
        return error
    return None


def _check_pytorch_error(row: Row, way: Way, expected: PyTorchError, folder: Path) -> None:
    bare, wrapped = (_error(row, Session(options, folder)) for options in (None, way.trains))
    assert expected.message in str(bare)
    assert not isinstance(bare, DNIError)
    same = type(wrapped) is type(bare) and expected.message in str(wrapped)
    assert same or isinstance(wrapped, DNIError), wrapped
