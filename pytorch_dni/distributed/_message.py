"""What ranks send to each other: a header and tensors, in one buffer of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DNIError

_ALIGNMENT = 16  # bytes; a view as another type must begin at a multiple of its size
_WORD = 8  # bytes of a number in the header


class Kind(IntEnum):
    """What a message is.

    Attributes:
        TRAIN: Tensors of a batch of training.
        EVALUATE: Tensors of a batch that is only evaluated.
        REFUSED: In the place of a batch whose numbers are not finite.
        END: No more batches come in this call.
        CLOSE: Nothing comes any more.
    """

    TRAIN = 0
    EVALUATE = 1
    REFUSED = 2
    END = 3
    CLOSE = 4


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: What it is.
        number: Number of the batch that it belongs to, from the beginning of training.
        tensors: The tensors; None where one is left out, such as the gradient of an unused
            activation. Empty unless the message belongs to a batch.
    """

    kind: Kind
    number: int
    tensors: Sequence[Tensor | None] = ()


class Slot(NamedTuple):
    """The place of one tensor in all messages of a channel.

    Attributes:
        dtype: Type of the tensor.
        dimensions: Number of its dimensions.
        nbytes: The most bytes that it may take.
    """

    dtype: torch.dtype
    dimensions: int
    nbytes: int

    @classmethod
    def of(cls, tensor: Tensor) -> Slot:
        """Return the place of a tensor of which no larger one follows."""
        return cls(tensor.dtype, tensor.dim(), tensor.numel() * tensor.element_size())

    def describe(self) -> list[Any]:
        """Return the place as plain data, for a comparison between ranks."""
        return [str(self.dtype).removeprefix("torch."), self.dimensions, self.nbytes]


class Layout:
    """How messages of one channel become bytes.

    The header has kind, number and count, and for each tensor whether it is there and its sizes, as
    whole numbers of 8 bytes. Tensors follow at multiples of 16 bytes.

    Args:
        slots: One for each tensor.
        what: What error messages call the tensors.
    """

    def __init__(self, slots: Sequence[Slot], what: str) -> None:
        self.slots = [*slots]
        self._what = what
        self._words = 3 + sum(1 + slot.dimensions for slot in slots)
        self._start = _aligned(self._words * _WORD)
        #: The most bytes that a message takes.
        self.nbytes = self._start + sum(_aligned(slot.nbytes) for slot in slots)

    def pack(self, message: Message) -> Tensor:
        """Return a message as bytes, on the CPU.

        Raises:
            DNIError: A tensor is of another type, or larger than in the example.
        """
        words = [int(message.kind), message.number, len(message.tensors)]
        size = self._start
        if message.tensors:
            for index, (slot, tensor) in enumerate(zip(self.slots, message.tensors, strict=True)):
                if tensor is None:
                    words += [0] * (1 + slot.dimensions)
                    continue
                self._check(index, slot, tensor)
                words += [1, *tensor.shape]
                size += _aligned(tensor.numel() * tensor.element_size())
        buffer = torch.empty(size, dtype=torch.uint8)
        header = torch.zeros(self._words, dtype=torch.int64)
        header[: len(words)] = torch.tensor(words, dtype=torch.int64)
        buffer[: self._words * _WORD].view(torch.int64).copy_(header)
        place = self._start
        for tensor in message.tensors:
            if tensor is not None and tensor.numel():
                end = place + tensor.numel() * tensor.element_size()
                buffer[place:end].view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
                place += _aligned(end - place)
        return buffer

    def unpack(self, buffer: Tensor) -> Message:
        """Return the message in a buffer; its tensors are views of the buffer."""
        words = buffer[: self._words * _WORD].view(torch.int64).tolist()
        kind, number, count = Kind(words[0]), words[1], words[2]
        tensors: list[Tensor | None] = []
        position, place = 3, self._start
        for slot in self.slots[:count]:
            there, *shape = words[position : position + 1 + slot.dimensions]
            position += 1 + slot.dimensions
            if not there:
                tensors.append(None)
                continue
            end = place + math.prod(shape) * slot.dtype.itemsize
            tensors.append(buffer[place:end].view(slot.dtype).view(shape))
            place += _aligned(end - place)
        return Message(kind, number, tensors)

    def _check(self, index: int, slot: Slot, tensor: Tensor) -> None:
        nbytes = tensor.numel() * tensor.element_size()
        if tensor.dtype != slot.dtype or tensor.dim() != slot.dimensions:
            raise DNIError(
                f"{self._what}, tensor {index}: {tuple(tensor.shape)} in {tensor.dtype}, but the "
                f"example had {slot.dimensions} dimensions in {slot.dtype}: give all batches the "
                "form of the example"
            )
        if nbytes > slot.nbytes:
            raise DNIError(
                f"{self._what}, tensor {index}: {tuple(tensor.shape)} takes {nbytes} bytes, more "
                f"than the {slot.nbytes} of the example: give the largest batch as the example"
            )


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
