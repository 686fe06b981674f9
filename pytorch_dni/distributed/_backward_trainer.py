"""What a part does by the backward unlock: the last part sends its error straight to every part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._torch import storage_number
from ..context import Context, current_context
from ..interfaces import OutputError
from ._message import Kind, Message
from ._part import Batch, PartPass
from ._trainers import Trainer


class Waiting(NamedTuple):
    """A batch that has run, and whose error or true gradient has not come yet.

    Attributes:
        number: Number of the batch.
        done: Its forward pass; None where the batch was refused.
        context: Its context.
        error: The error, once it has come.
    """

    number: int
    done: PartPass | None
    context: Context | None
    error: OutputError | None = None


class BackwardTrainer(Trainer):
    """Learns from gradients that are predicted from the error, which comes in one hop.

    All parts run their backward passes at the same time. The error of batch ``n - in_flight`` is
    learned from before batch ``n`` runs, and the true gradient of a batch, which trains the
    synthesizer, ``in_flight - 1`` batches after its error.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._run: deque[Waiting] = deque()
        self._sent: deque[Waiting] = deque()

    def make_room(self) -> None:
        """Learn from the errors of earlier batches."""
        self._learn_all_but(self.in_flight - 1)

    def finish(self) -> None:
        """Learn from all errors and all true gradients."""
        self._learn_all_but(0)
        self._learn_true_but(0)

    def _learn_all_but(self, count: int) -> None:
        while len(self._run) > count:
            self._learn_true_but(self.in_flight - 1)
            self._learn_error(self._run.popleft())

    def _learn_error(self, waiting: Waiting) -> None:
        """Wait for the error of a batch, learn from it, and send the gradients back."""
        assert self.cut is not None
        message = self.links.take_error(waiting.number)
        if waiting.done is None or message.kind is Kind.REFUSED:
            self.refused += waiting.done is not None
            self.links.send_back(Message(Kind.REFUSED, waiting.number))
            self._note_sent(waiting._replace(done=None))
            return
        (value,) = message.tensors
        assert value is not None
        error = OutputError()
        error.receive(1 if value.dim() in (4, 5) else -1, value.to(self.part.device))
        outputs = waiting.done.outputs
        self.part.learn(waiting.done, self.cut.predict(outputs, waiting.context, error))
        self.send_back(waiting.number, waiting.done)
        detached = PartPass([], [output.detach() for output in outputs])
        self._note_sent(waiting._replace(done=detached, error=error))

    def _note_sent(self, waiting: Waiting) -> None:
        if self.links.gets_gradients:
            self._sent.append(waiting)

    def _learn_true_but(self, count: int) -> None:
        while len(self._sent) > count:
            sent = self._sent.popleft()
            true = self.links.take_gradients(sent.number)
            if true is not None and sent.done is not None:
                assert self.cut is not None
                self.cut.learn(sent.done.outputs, sent.context, true, sent.error)

    def forward(self, batch: Batch) -> PartPass:
        """Run the part; where it will be updated before its backward pass, keep its weights."""
        several = self.in_flight > 1 and self.loss is None
        with kept_weights(self.part.module.parameters()) if several else nullcontext():
            return super().forward(batch)

    def learn(self, batch: Batch, done: PartPass) -> None:
        """Send the outputs on; the error comes later."""
        self.send_on(batch, done)
        self._run.append(Waiting(batch.number, done, current_context()))

    def learn_loss(self, batch: Batch, done: PartPass, value: Tensor) -> None:
        """Send the error to every part, before this one runs its own backward pass."""
        (error,) = torch.autograd.grad(value, done.outputs[0])
        self.links.send_error(Message(Kind.TRAIN, batch.number, [error]))
        self.part.learn(done, [error])

    def refuse(self, number: int) -> None:
        """Tell all parts, or wait until the last one does: messages stay in order."""
        if self.loss is not None:
            self.links.send_error(Message(Kind.REFUSED, number))
            self.links.send_back(Message(Kind.REFUSED, number))
        else:
            self._run.append(Waiting(number, None, None))


def kept_weights(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[object]:
    """Return a scope in which graphs keep parameters as they are now, by copies.

    The optimizer changes parameters in place. A backward pass that comes later needs those of its
    forward pass.
    """
    storages = {storage_number(parameter) for parameter in parameters}

    def pack(tensor: Tensor) -> Tensor:
        known = tensor.layout is torch.strided and storage_number(tensor) in storages
        return tensor.detach().clone() if known else tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
