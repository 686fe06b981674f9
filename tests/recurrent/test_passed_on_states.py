"""A state that the next window does not receive has the target zero."""

import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.recurrent_zoo import Loop, Sequence
from tests.support.temporal_windows import record_lessons


def test_a_state_that_is_not_passed_on_has_the_target_zero():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.LSTM), grad_lr=0.0)
    x = torch.randn(3, 5, 3)
    net(x, net(x, None)[1])[0].sum().backward()
    interface = net.interfaces["core.state"]
    lessons = record_lessons(interface)
    assert interface.stats().updates == 1
    out, state = net(x, None)
    out.sum().backward()
    assert not lessons[0][0].any()
    out, _ = net(x, state)
    out.sum().backward()
    assert lessons[1][0].all()
    out, _ = net(x[:, :2], tuple(s[:, :2] for s in state))  # The batch is smaller.
    out.sum().backward()
    assert not lessons[2][0].any()  # The window before did not leave that state.
    out, state = net(x, None)
    net.end_of_sequence()
    out.sum().backward()
    out, _ = net(x, state)
    out.sum().backward()
    assert not lessons[-1][0].any()


def test_a_smaller_batch_continues_the_first_samples():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.GRU), grad_lr=0.0)
    x = torch.randn(3, 5, 3)
    out, state = net(x, None)
    out.sum().backward()
    interface = net.interfaces["core.state"]
    lessons = record_lessons(interface)
    out, state = net(x[:, :3], state[:, :3].contiguous())
    out.sum().backward()
    assert lessons[0][0].shape == (5, 8)
    assert lessons[0][0][:3].all()
    assert not lessons[0][0][3:].any()
    out, _ = net(x[:, :4], torch.cat([state, torch.zeros(2, 1, 4)], 1))
    out.sum().backward()
    assert lessons[1][0].shape == (3, 8)
    assert lessons[1][0].all()


def test_a_sample_reset_in_place_has_the_target_zero():
    net = DNI(Loop(nn.GRUCell))
    x = torch.randn(3, 5, 3)
    _, state = net(x, None)
    for _ in range(3):
        out, state = net(x, state.detach())
        out.sum().backward()
    interface = net.interfaces["core.state"]
    lessons = record_lessons(interface)
    state = state.detach()
    state[1] = 0
    net(x, state)[0].sum().backward()
    assert lessons[0][0].any(1).tolist() == [True, False, True, True, True]
