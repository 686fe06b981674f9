"""A pending update changes nothing before it is applied, and counts in whatever it finds then."""

import pytest
import torch

from pytorch_dni import BackwardInterface, Linear_DNI, RNN_DNI

DECAY = 0.99


def pending(interface, messages):
    """Return one update for each message, all computed before any is applied."""
    with torch.no_grad():
        return [
            interface.learn(interface.predict(torch.randn(4, 3).double()), message)
            for message in messages
        ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_updates_count_in_the_order_in_which_they_are_applied(order):
    interface = BackwardInterface(Linear_DNI(3, 4, 3).double())
    messages = [torch.randn(4, 3).double() * 10**i for i in range(3)]
    updates = pending(interface, messages)
    assert interface.scale.count == interface.moments.updates == 0
    running = 0.0
    for i in order:
        updates[i].apply()
        running = DECAY * running + (1 - DECAY) * messages[i].square().mean().item()
    assert interface.scale.count == interface.moments.updates == 3
    expected = (running / (1 - DECAY**3)) ** 0.5
    assert interface.scale.value == pytest.approx(expected, rel=1e-9)


def test_the_state_of_a_recurrent_synthesizer_changes_when_the_update_is_applied():
    interface = BackwardInterface(RNN_DNI(3, 4, 3).double())
    (update,) = pending(interface, [torch.randn(4, 3).double()])
    assert interface.hidden is None
    update.apply()
    assert interface.hidden is not None
