"""Messages become bytes and back."""

import pytest
import torch

from pytorch_dni import DNIError
from pytorch_dni.distributed._message import Kind, Layout, Message, Slot

LARGEST = [
    torch.zeros(4, 3),
    torch.zeros(4, dtype=torch.int64),
    torch.zeros((), dtype=torch.bfloat16),
    torch.zeros(4, 5, dtype=torch.bool),
]


def layout():
    return Layout([Slot.of(tensor) for tensor in LARGEST], "tensors")


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_tensors_and_header_come_back(rows):
    sent = [torch.randn(rows, 3), torch.arange(rows), torch.ones((), dtype=torch.bfloat16), None]
    buffer = layout().pack(Message(Kind.TRAIN, 7, sent))
    assert buffer.dtype == torch.uint8
    assert len(buffer) <= layout().nbytes
    received = torch.empty(layout().nbytes, dtype=torch.uint8)
    received[: len(buffer)] = buffer
    kind, number, tensors = layout().unpack(received)
    assert (kind, number, tensors[3]) == (Kind.TRAIN, 7, None)
    for before, after in zip(sent[:3], tensors, strict=False):
        assert after.dtype == before.dtype
        assert torch.equal(before, after)


def test_a_layout_that_is_not_contiguous_and_needs_a_gradient_is_sent_by_value():
    tensor = torch.randn(3, 4, requires_grad=True).t()
    found = layout().unpack(layout().pack(Message(Kind.TRAIN, 0, [tensor, None, None, None])))
    assert torch.equal(found.tensors[0], tensor)
    assert not found.tensors[0].requires_grad


def test_messages_without_a_batch_have_no_tensors():
    message = layout().unpack(layout().pack(Message(Kind.END, 12)))
    assert message == (Kind.END, 12, [])


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(5, 3), "more than the 48 of the example: give the largest batch"),
        (torch.zeros(4, 3, dtype=torch.float64), "in torch.float64, but the example"),
        (torch.zeros(12), "2 dimensions in torch.float32"),
    ],
)
def test_what_does_not_fit_the_example_is_refused(tensor, reason):
    with pytest.raises(DNIError, match=reason):
        layout().pack(Message(Kind.TRAIN, 0, [tensor, None, None, None]))
