"""The channels of a part to its neighbours, and those of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from ._channel import Lost, Receiver, Sender, Waiting
from ._message import Kind, Layout, Message, Slot
from ._place import Place
from ._transport import Transport

_ACTIVATIONS, _GRADIENTS, _ERRORS = 1, 2, 3  # tags, beside those of the example

#: How many tags a stage has; several stages may be there at once.
TAGS = 4


class Slots(NamedTuple):
    """The tensors of a part's messages, found from the example.

    Attributes:
        inputs: Inputs of the part.
        outputs: What it passes on.
        extras: What travels on to the last part.
        error: The error at the network's output; empty where it is not sent.
    """

    inputs: list[Slot]
    outputs: list[Slot]
    extras: list[Slot]
    error: list[Slot]


class Ends(NamedTuple):
    """What all channels of a rank share.

    Attributes:
        transport: Sends the bytes.
        waiting: Counts the time of waiting.
        lost: Returns the error for a rank that is lost.
        timeout: The most seconds to wait for one message.
        depth: How many messages are received ahead.
        first_tag: The first tag of this stage.
    """

    transport: Transport
    waiting: Waiting
    lost: Lost
    timeout: float
    depth: int
    first_tag: int

    def receiver(self, peer: int, tag: int, slots: Sequence[Slot], what: str) -> Receiver:
        """Return the end of a channel that receives."""
        end = Receiver(
            self.transport, peer, self.first_tag + tag, Layout(slots, what), *self._rest()
        )
        end.begin()
        return end

    def sender(self, peer: int, tag: int, slots: Sequence[Slot], what: str) -> Sender:
        """Return the end of a channel that sends."""
        layout = Layout(slots, what)
        return Sender(self.transport, peer, self.first_tag + tag, layout, *self._rest())

    def _rest(self) -> tuple[int, Waiting, Lost, float]:
        return self.depth, self.waiting, self.lost, self.timeout


class Links:
    """All channels of a part.

    Args:
        place: The place of the rank.
        slots: The tensors of its messages.
        ends: What all channels share.
        gradient_in: Whether true gradients come from the next part.
        gradient_out: Whether the part before needs true gradients.
    """

    def __init__(
        self, place: Place, slots: Slots, ends: Ends, gradient_in: bool, gradient_out: bool
    ) -> None:
        what = f"what part {place.part - 1} sends to part {place.part}"
        inward = [*slots.inputs, *slots.extras]
        self._source = self._back = self._on = self._gradients = self._error = None
        self._errors: list[Sender] = []
        self._inputs = len(slots.inputs)
        if not place.is_first:
            self._source = ends.receiver(place.previous, _ACTIVATIONS, inward, what)
            if gradient_out:
                grads = [slot for slot in slots.inputs if slot.dtype.is_floating_point]
                self._back = ends.sender(place.previous, _GRADIENTS, grads, "gradients")
        if not place.is_last:
            outward = [*slots.outputs, *slots.extras]
            what = f"what part {place.part} sends to part {place.part + 1}"
            self._on = ends.sender(place.next, _ACTIVATIONS, outward, what)
            if gradient_in:
                grads = [slot for slot in slots.outputs if slot.dtype.is_floating_point]
                self._gradients = ends.receiver(place.next, _GRADIENTS, grads, "gradients")
        if slots.error and place.is_last:
            ranks = [place.rank_of(part) for part in range(place.parts - 1)]
            self._errors = [ends.sender(rank, _ERRORS, slots.error, "the error") for rank in ranks]
        elif slots.error:
            last = place.rank_of(place.parts - 1)
            self._error = ends.receiver(last, _ERRORS, slots.error, "the error")
        self._floating = [
            index for index, slot in enumerate(slots.outputs) if slot.dtype.is_floating_point
        ]
        self._outputs = len(slots.outputs)

    @property
    def gets_gradients(self) -> bool:
        """Whether true gradients come from the next part."""
        return self._gradients is not None

    @property
    def sends_gradients(self) -> bool:
        """Whether the part before gets true gradients."""
        return self._back is not None

    def take(self) -> Message:
        """Wait for the next batch from the part before."""
        assert self._source is not None
        return self._source.next()

    def poll(self, seconds: float) -> Message | None:
        """Wait for the next batch for some seconds; return None where it has not come."""
        assert self._source is not None
        return self._source.poll(seconds)

    def inputs_and_extras(self, message: Message) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors of a batch: inputs of the part, and what travels on."""
        tensors = [tensor for tensor in message.tensors if tensor is not None]
        return tensors[: self._inputs], tensors[self._inputs :]

    def send_on(self, message: Message) -> None:
        """Send to the next part, if there is one."""
        if self._on is not None:
            self._on.send(message)

    def send_back(self, message: Message) -> None:
        """Send gradients to the part before, if it needs them."""
        if self._back is not None:
            self._back.send(message)

    def send_error(self, message: Message) -> None:
        """Send the error to every other part."""
        for sender in self._errors:
            sender.send(message)

    def take_error(self, number: int) -> Message:
        """Wait for the error of a batch."""
        assert self._error is not None
        return self._error.next(number)

    def take_gradients(self, number: int) -> list[Tensor | None] | None:
        """Wait for the gradients of the outputs in a batch; None where the batch was refused."""
        assert self._gradients is not None
        message = self._gradients.next(number)
        if message.kind is Kind.REFUSED:
            return None
        grads: list[Tensor | None] = [None] * self._outputs
        for index, grad in zip(self._floating, message.tensors, strict=True):
            grads[index] = grad
        return grads

    def close(self) -> None:
        """Close all channels; every rank has to call it."""
        senders = [s for s in (self._on, self._back, *self._errors) if s is not None]
        receivers = [r for r in (self._source, self._gradients, self._error) if r is not None]
        steps: list[Callable[[], None]] = [
            *(sender.send_close for sender in senders),
            *(receiver.close for receiver in receivers),
            *(sender.close for sender in senders),
        ]
        for step in steps:
            step()
