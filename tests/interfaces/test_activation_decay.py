"""The decay of activations in learned feedback is a least-squares coefficient."""

import pytest
import torch

from pytorch_dni.interfaces._decay import _FIRST_USE, ActivationDecay

RISE, FALL = 0.3, 0.1


def run(decay, steps, slope, generator):
    """Feed targets that hold ``slope`` times the activation; return all coefficients."""
    samples = []
    for _ in range(steps):
        activation = torch.randn(6, 4, dtype=torch.float64, generator=generator)
        rest = torch.randn(6, 4, dtype=torch.float64, generator=generator)
        target = slope * activation + rest
        used, scale = decay.value, 5.0
        residual = (used * activation - target) / scale
        decay.apply(decay.measure(residual, scale, activation, used))
        samples.append(((activation * target).sum() / activation.square().sum()).item())
    return samples


def reference(samples):
    running = samples[0]
    for sample in samples[1:]:
        running += (RISE if sample > running else FALL) * (sample - running)
    return running


@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_it_is_the_running_least_squares_coefficient(slope):
    decay = ActivationDecay(torch.zeros((), dtype=torch.float64))
    samples = run(decay, _FIRST_USE + 3, slope, torch.Generator().manual_seed(0))
    assert decay.value == pytest.approx(reference(samples), rel=1e-9)
    assert decay.value == pytest.approx(slope, abs=0.3)


def test_it_is_zero_at_first_and_never_negative():
    generator = torch.Generator().manual_seed(0)
    decay = ActivationDecay(torch.zeros(()).double())
    run(decay, _FIRST_USE - 1, 1.0, generator)
    assert decay.value == 0
    run(decay, 1, 1.0, generator)
    assert decay.value > 0
    run(decay, 200, -3.0, generator)
    assert decay.value == 0


def test_overflows_do_not_stay_and_a_saved_state_goes_on_alike():
    decay = ActivationDecay(torch.zeros(()).double())
    generator = torch.Generator().manual_seed(0)
    run(decay, 240, 1.0, generator)
    before = decay.value
    bad = torch.full((6, 4), float("inf")).double()
    decay.apply(decay.measure(bad, 1.0, bad, 0.0))
    assert decay.value == before
    other = ActivationDecay(torch.zeros(()).double())
    other.load_state_dict(decay.state_dict())
    for one in (decay, other):
        run(one, 17, 1.0, torch.Generator().manual_seed(1))
    assert decay.value == other.value
