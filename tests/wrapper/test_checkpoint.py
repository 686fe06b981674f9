"""Checkpoints: resumed training equals uninterrupted training."""

import pytest
from torch import nn

from pytorch_dni import CheckpointError, DNI, LocalLoss_DNI, RNN_DNI
from tests.support.checkpoints import through_file
from tests.support.wrapped import assert_equal, classifier, Run

KINDS = {
    "regressed": {},
    "recurrent": {"dni_network": RNN_DNI, "hidden_size": 5},
    "local": {"dni_network": LocalLoss_DNI},
    "named": {"layers": ["0", "3"], "grad_optim": "sgd"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fresh", [True, False])
def test_resumed_training_equals_uninterrupted_training(kind, fresh):
    whole = Run(**KINDS[kind])
    whole.train(0, 30)
    first = Run(**KINDS[kind])
    first.train(0, 12)
    state = through_file({"net": first.net.state_dict(), "opt": first.opt.state_dict()})
    second = Run(**KINDS[kind])
    if not fresh:
        second.train(50, 53)
    second.net.load_state_dict(state["net"])
    second.opt.load_state_dict(state["opt"])
    assert list(second.net.interfaces) == list(first.net.interfaces)
    second.train(12, 30)
    assert_equal(whole.tensors(), second.tensors())
    assert whole.net.stats() == second.net.stats()


def test_the_networks_state_has_the_keys_of_the_bare_network():
    run = Run()
    keys = list(classifier().state_dict())
    run.train(0, 2)
    assert list(run.net.network.state_dict()) == keys
    classifier().load_state_dict(run.net.network.state_dict())
    assert set(run.net.state_dict()) == {f"network.{k}" for k in keys} | {"_extra_state"}


def test_a_wrapper_may_be_saved_before_its_first_run():
    state = through_file(Run().net.state_dict())
    run = Run()
    run.train(0, 2)
    other = Run()
    other.net.load_state_dict(state)
    other.train(0, 2)
    assert_equal(run.tensors(), other.tensors())


def test_bp_lambda_set_while_training_is_saved():
    run = Run()
    run.net.bp_lambda = 0.25
    other = Run()
    other.net.load_state_dict(through_file(run.net.state_dict()))
    assert other.net.bp_lambda == 0.25
    scheduled = Run(bp_lambda=lambda step: 1.0)
    scheduled.net.load_state_dict(through_file(run.net.state_dict()))
    assert callable(scheduled.net.bp_lambda)


@pytest.mark.parametrize(
    "options", [{"hidden_size": 16}, {"dni_network": LocalLoss_DNI}, {"grad_optim": "sgd"}]
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(options):
    run = Run()
    run.train(0, 3)
    state = through_file(run.net.state_dict())
    other = Run(**options)
    other.train(5, 8)
    before = [p.clone() for p in other.tensors()]
    stats = other.net.stats()
    with pytest.raises(CheckpointError, match="does not fit this wrapper"):
        other.net.load_state_dict(state)
    assert_equal(before, other.tensors())
    assert other.net.stats() == stats
    network = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))
    with pytest.raises(CheckpointError, match="does not fit this wrapper"):
        DNI(network, context_size=3).load_state_dict(state, strict=False)
