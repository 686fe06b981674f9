"""Copies of a wrapper train independently of the original."""

import copy

import pytest

from tests.support.checkpoints import COPIES
from tests.support.wrapped import assert_equal, Run

KINDS = {"local error": {}, "feedback": {"context_size": None}}
KINDS["exact every"] = {"context_size": None, "exact_every": 3}
KINDS["update"] = {"context_size": None, "unlock": "update"}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_train_independently_and_equally(kind):
    run = Run(**KINDS[kind])
    run.train(0, 3)
    for duplicate in COPIES:
        clone = duplicate(run)
        before = [p.clone() for p in run.tensors()]
        assert_equal(before, clone.tensors())
        clone.train(3, 6)
        assert_equal(before, run.tensors())
        continued = copy.deepcopy(run)
        continued.train(3, 6)
        assert_equal(continued.tensors(), clone.tensors())
        clone.net.unwrap()
        assert not any(m._forward_hooks for m in clone.network.modules())
        assert any(m._forward_hooks for m in run.network.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_copies_made_before_the_first_run_work(kind):
    run = Run(**KINDS[kind])
    for duplicate in COPIES:
        clone = duplicate(run)
        clone.train(0, 3)
        assert clone.net.interfaces
        assert not run.net.interfaces
