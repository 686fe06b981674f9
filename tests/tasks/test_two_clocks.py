"""Two networks on two clocks: messages, their gradients, and two processes."""

from collections import deque

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from tasks import clock_networks, two_clocks
from tasks.clock_networks import Fast, FastLearner, LocalMail, run_both, Slow, SlowLearner
from tasks.image_data import ImageSet
from tests.support.digits import write_digits
from tests.support.programs import fails, run
from tests.support.ranks import RankProcesses

PERIOD, BATCH, HIDDEN = 4, 5, 6


class KeptMail(LocalMail):
    """Keeps what was sent, too."""

    def __init__(self):
        super().__init__()
        self.all = {}

    def send(self, kind, message):
        super().send(kind, message)
        self.all.setdefault(kind, []).append(message.detach().clone())


def batch(seed=0):
    torch.manual_seed(seed)
    digits = ImageSet(torch.randn(50, 1, 28, 28), torch.randint(10, (50,)))
    return two_clocks.Digits(digits, PERIOD, BATCH).batch(1, seed)


def run_once(lr=0.0, context_dim=None):
    torch.manual_seed(3)
    mail, fast, slow = KeptMail(), Fast(PERIOD, HIDDEN), Slow(PERIOD, HIDDEN)
    learners = [FastLearner(fast, mail, lr, context_dim), SlowLearner(slow, mail, lr)]
    data = batch()
    for learner in learners:
        learner.begin(BATCH)
    for tick in range(PERIOD):
        for learner in learners:
            learner.tick(tick, data.images[tick], data.odd[tick], data.threes[tick])
    for learner in learners:
        learner.end(data.all_threes)
    return learners, mail, data


def test_counts_are_those_of_the_digits():
    torch.manual_seed(0)
    digits = ImageSet(torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 28, 28), torch.arange(10))
    found = two_clocks.Digits(digits, PERIOD, BATCH).batch(1, 0)
    labels = found.images[:, :, :, 0, 0, 0]
    assert torch.equal(found.odd, (labels % 2).sum(1).long())
    assert torch.equal(found.threes, (labels == 3).sum(1))
    assert torch.equal(found.all_threes, (labels == 3).sum((0, 1)))


def test_decoupled_networks_exchange_the_messages_of_connected_ones():
    (fast, slow), mail, data = run_once()
    state = clock_networks.new_state(BATCH, HIDDEN)
    slow_state = clock_networks.new_state(BATCH, HIDDEN)
    back = deque([torch.zeros(BATCH, HIDDEN)] * 2)
    with torch.no_grad():
        for tick in range(PERIOD):
            _, state = fast.network(data.images[tick], back.popleft(), state)
            slow_state = slow.network(state[0], slow_state)
            back.append(slow_state[0])
            assert torch.equal(mail.all[clock_networks._TO_SLOW][tick], state[0])
            if tick < PERIOD - 2:
                assert torch.equal(mail.all[clock_networks._TO_FAST][tick], slow_state[0])
        assert len(mail.all[clock_networks._TO_FAST]) == PERIOD - 2
        counts, threes = run_both(fast.network, slow.network, data.images)
    assert torch.equal(threes, slow.network.readout(slow_state[0]))
    assert len(counts) == PERIOD


@pytest.mark.parametrize("context_dim", [None, PERIOD + 1])
def test_the_gradients_of_messages_are_those_of_the_receivers_loss(context_dim):
    """Synthetic gradients are zero at first."""
    (fast, slow), mail, data = run_once(context_dim=context_dim)
    messages = [m.requires_grad_() for m in mail.all[clock_networks._TO_SLOW]]
    state = clock_networks.new_state(BATCH, HIDDEN)
    for message in messages:
        state = slow.network(message, state)
    loss = F.cross_entropy(slow.network.readout(state[0]), data.all_threes)
    expected = torch.autograd.grad(loss, messages)
    torch.testing.assert_close(mail.all[clock_networks._GRADIENT_TO_FAST], [*expected])
    assert len(mail.all[clock_networks._GRADIENT_TO_SLOW]) == PERIOD - 2
    before = fast.interface.stats().updates
    fast.finish()
    slow.finish()
    assert fast.interface.stats().updates == before + PERIOD
    assert slow.interface.stats().updates == PERIOD - 2


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_train_as_one_does(tmp_path, capsys):
    data = write_digits(tmp_path)
    argv = ["--data", data, "--steps", 6, "--batch", 4, "--hidden", 8, "--lr", "1e-2"]
    assert run(two_clocks, *argv, "--mode", "bp,cdni") == 0
    bp, cdni = capsys.readouterr().out.splitlines()[-2:]
    assert bp.startswith("bp ")
    codes, printed = RankProcesses(
        2, two_clocks.main, [*argv, "--mode", "cdni", "--ranks", 2], tmp_path
    ).finish()
    assert codes == [0, 0], printed
    assert printed[0].splitlines()[-1].split() == cdni.split()


def test_wrong_options_are_one_line_of_error(tmp_path, capsys):
    assert "take --ranks 1" in fails(capsys, two_clocks, "--ranks", 2, "--mode", "bp")
    assert "--ranks must be 1 or 2" in fails(capsys, two_clocks, "--ranks", 3)
    assert "no MNIST in --data" in fails(capsys, two_clocks, "--data", tmp_path)
