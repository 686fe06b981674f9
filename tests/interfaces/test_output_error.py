"""The error of a pass, as synthesizers are given it."""

import pytest
import torch

from pytorch_dni.interfaces._error import ErrorInput, OutputError


def test_the_error_is_given_on_the_device_of_a_cut_and_in_its_type():
    error = OutputError()
    error.receive(1, torch.randn(4, 3, 2))
    for device in ("cpu", "meta"):  # "meta" stands for the device of another part.
        like = torch.zeros((), dtype=torch.float64, device=device)
        found = ErrorInput(like, decays=False).scaled(*error.known(like.dtype, like.device))
        assert (found.value.device, found.value.dtype) == (like.device, torch.float64)
        assert found.value.shape == (4, 2, 3)


def test_the_first_error_is_divided_by_its_own_size():
    error, given, value = (
        OutputError(),
        ErrorInput(torch.zeros(()), decays=False),
        torch.randn(4, 3),
    )
    error.receive(-1, value)
    found = given.scaled(*error.known(torch.float32, value.device))
    assert found.unit == pytest.approx(value.square().mean().sqrt().item())
    assert given.scale.count == 0
    given.scale.apply(found.update)
    assert given.scale.value == pytest.approx(found.unit)
