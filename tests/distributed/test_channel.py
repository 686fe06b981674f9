"""Channels: messages belong to the batch that is expected, and late ones can be polled."""

import threading
import time

import pytest
import torch

from pytorch_dni import DNIError
from pytorch_dni.distributed import LostRankError
from pytorch_dni.distributed._channel import Receiver, Sender, Waiting
from pytorch_dni.distributed._message import Kind, Layout, Message, Slot
from tests.support.pipeline import MemoryTransport


def lost(rank, reason):
    return LostRankError(f"rank {rank} is lost: {reason}")


def ends(timeout=5.0):
    queues, lock = {}, threading.Lock()
    layout, waiting = Layout([Slot.of(torch.zeros(3))], "tensors"), Waiting()
    options = 1, layout, 2, waiting, lost, timeout
    receiver = Receiver(MemoryTransport(1, queues, lock), 0, *options)
    receiver.begin()
    return Sender(MemoryTransport(0, queues, lock), 1, *options), receiver


def message(number):
    return Message(Kind.TRAIN, number, [torch.full((3,), float(number))])


def test_a_message_of_another_batch_is_refused():
    sender, receiver = ends()
    for number in (3, 4):
        sender.send(message(number))
    assert torch.equal(receiver.next(3).tensors[0], torch.full((3,), 3.0))
    with pytest.raises(DNIError, match=r"a message of batch 4 \(TRAIN\) came from rank 0 where"):
        receiver.next(5)


def test_a_message_that_has_not_come_can_be_polled():
    sender, receiver = ends()
    assert receiver.poll(0.01) is None
    assert receiver.poll(0.01) is None
    sender.send(message(1))
    assert receiver.poll(5.0).number == 1
    sender.send(message(2))
    assert receiver.next(2).number == 2


@pytest.mark.parametrize("polls", [True, False])
def test_silence_is_the_loss_of_the_other_rank(polls):
    _, receiver = ends(timeout=0.05)
    start = time.monotonic()
    with pytest.raises(LostRankError, match="rank 0 is lost: nothing came in time"):
        receiver.poll(5.0) if polls else receiver.next()
    assert time.monotonic() - start < 4


def test_closing_ends_all_receives():
    sender, receiver = ends()
    sender.send_close()
    receiver.close()
    sender.close()


def test_a_message_after_the_last_call_is_an_error():
    sender, receiver = ends()
    sender.send(message(1))
    with pytest.raises(DNIError, match="TRAIN came from rank 0 after the last call"):
        receiver.close()
