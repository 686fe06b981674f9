"""What a part does with each batch: locked, or by the update unlock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..context import Context, current_context, synthesizer_context
from ..interfaces import ForwardInterface
from ._cut import Cut
from ._links import Links
from ._message import Kind, Message
from ._part import Batch, PartPass, PartRunner

Loss = Callable[..., Tensor]


class Sent(NamedTuple):
    """A batch that was passed on, and whose true gradient has not come yet.

    Attributes:
        number: Number of the batch.
        outputs: What was passed on; None where the batch was refused.
        context: Its context.
    """

    number: int
    outputs: Sequence[Tensor] | None
    context: Context | None


class Trainer(ABC):
    """Trains a part on the batches that come.

    Args:
        part: The part.
        cut: The interfaces at its end; None for the last part, and where it is locked.
        links: Its channels.
        loss: The loss, in the last part.
        in_flight: How many batches may be sent whose true gradient has not come.
        has_context: Whether the second of the extras is a context, apart from the target.
        agreed: Returns whether what it is given is true of all replicas of the part, which have to
            update together.

    Attributes:
        refused: How many batches were refused, since their numbers were not finite.
        synthesised: How many batches it has learned from synthesised activations.
        patience: Seconds after which :meth:`learn_idle` is called; None for never.
        interface: Predicts the activations that the part gets; None where they are not predicted.
    """

    def __init__(
        self,
        part: PartRunner,
        cut: Cut | None,
        links: Links,
        loss: Loss | None,
        in_flight: int,
        has_context: bool,
        agreed: Callable[[bool], bool] = bool,
    ) -> None:
        self._agreed = agreed
        self.part, self.cut, self.links = part, cut, links
        self.loss, self.in_flight = loss, in_flight
        self._has_context = has_context
        self.refused = self.synthesised = 0
        self.patience: float | None = None
        self.interface: ForwardInterface | None = None
        self._losses: list[Tensor] = []

    def train(self, source: Iterable[Message], observe: Callable[[Message], None]) -> None:
        """Train on all batches of a source, and finish what is under way.

        Args:
            source: Messages of batches.
            observe: Called after each of them.
        """
        number = -1
        for message in source:
            self.make_room()
            number = message.number
            inputs, extras = self.links.inputs_and_extras(message)
            if message.kind is Kind.REFUSED:
                self._refuse(number)
            else:
                self._train(Batch(number, inputs, extras))
            observe(message)
        self.links.send_on(Message(Kind.END, number))
        self.finish()

    def learn_idle(self) -> bool:
        """Learn while no batch comes; return whether there may be more to learn."""
        return False

    def take_losses(self) -> float | None:
        """Return the mean of the losses since the last call; None without any."""
        mean = torch.stack(self._losses).mean().item() if self._losses else None
        self._losses = []
        return mean

    def make_room(self) -> None:  # noqa: B027 - a part may have nothing to wait for
        """Before the next batch, wait until no more than the allowed ones are under way."""

    def finish(self) -> None:  # noqa: B027
        """After the last batch, wait for what is under way."""

    def _train(self, batch: Batch) -> None:
        if not self._agreed(is_finite(batch.inputs)):
            # Running it would spoil the statistics of BatchNorm.
            self._refuse(batch.number)
            return
        with self.scope(batch) if self.loss is None else nullcontext():
            done = self.forward(batch)
            if self.loss is not None:
                self.learn_last(batch, done)
            elif self._agreed(is_finite(done.outputs)):
                self.learn(batch, done)
            else:
                self._refuse(batch.number)

    def forward(self, batch: Batch) -> PartPass:
        """Run the part."""
        return self.part.forward(batch.inputs)

    def scope(self, batch: Batch) -> AbstractContextManager[None]:
        """Return a scope with the context of a batch, where the interfaces take one."""
        takes = self.cut is not None and self.cut.takes_context
        return synthesizer_context(self.context_of(batch) if takes else None)

    def context_of(self, batch: Batch) -> Tensor:
        """Return the context of a batch."""
        return batch.extras[1 if self._has_context else 0].to(self.part.device)

    def _refuse(self, number: int) -> None:
        self.refused += 1
        message = Message(Kind.REFUSED, number)
        self.links.send_on(message)
        self.refuse(number)

    def send_on(self, batch: Batch, done: PartPass) -> None:
        """Send the outputs to the next part."""
        self.links.send_on(Message(Kind.TRAIN, batch.number, [*done.outputs, *batch.extras]))

    def send_back(self, number: int, done: PartPass) -> None:
        """Send the gradients of the inputs to the part before."""
        self.links.send_back(Message(Kind.TRAIN, number, done.input_gradients()))

    def learn_last(self, batch: Batch, done: PartPass) -> None:
        """In the last part, learn from the loss and send the gradients back."""
        assert self.loss is not None
        value = self.part.loss(done, batch.extras[0], self.loss)
        if not self._agreed(bool(value.isfinite())):
            self._refuse(batch.number)
            return
        self._losses.append(value.detach())
        self.learn_loss(batch, done, value)
        self.send_back(batch.number, done)

    def learn_loss(self, batch: Batch, done: PartPass, value: Tensor) -> None:
        """Learn from the loss."""
        self.part.learn_loss(value)

    @abstractmethod
    def learn(self, batch: Batch, done: PartPass) -> None:
        """Send the outputs on, and learn; in each part but the last."""

    @abstractmethod
    def refuse(self, number: int) -> None:
        """Tell the part before that a batch was refused, and expect no gradient."""


class LockedTrainer(Trainer):
    """Waits for the true gradient: equal to backpropagation in one process."""

    def learn(self, batch: Batch, done: PartPass) -> None:
        """Send on, wait for the true gradient, and learn from it."""
        self.send_on(batch, done)
        grads = self.links.take_gradients(batch.number)
        finite = grads is not None and is_finite([g for g in grads if g is not None])
        if grads is None or not self._agreed(finite):
            self.refused += 1
            self.links.send_back(Message(Kind.REFUSED, batch.number))
            return
        self.part.learn(done, [None if g is None else g.to(self.part.device) for g in grads])
        self.send_back(batch.number, done)

    def refuse(self, number: int) -> None:
        """Tell the part before; the next part answers, too."""
        if self.links.gets_gradients:
            self.links.take_gradients(number)
        self.links.send_back(Message(Kind.REFUSED, number))


class UpdateTrainer(Trainer):
    """Learns from synthetic gradients at once, and teaches them when the true ones come.

    The true gradient of batch ``n - in_flight`` is learned before batch ``n`` runs, however early
    it comes: so a run depends on nothing but its seed.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._sent: deque[Sent] = deque()

    def make_room(self) -> None:
        """Learn from the true gradients of earlier batches."""
        self._learn_all_but(self.in_flight - 1)

    def finish(self) -> None:
        """Learn from all true gradients."""
        self._learn_all_but(0)

    def _learn_all_but(self, count: int) -> None:
        while len(self._sent) > count:
            sent = self._sent.popleft()
            true = self.links.take_gradients(sent.number)
            if true is not None and sent.outputs is not None:
                assert self.cut is not None
                self.cut.learn(sent.outputs, sent.context, true)

    def learn(self, batch: Batch, done: PartPass) -> None:
        """Send on, learn from the synthetic gradient, and send the gradient of the inputs back."""
        assert self.cut is not None
        self.send_on(batch, done)
        context = current_context()
        self.part.learn(done, self.cut.predict(done.outputs, context))
        self.send_back(batch.number, done)
        if self.links.gets_gradients:
            outputs = [output.detach() for output in done.outputs]
            self._sent.append(Sent(batch.number, outputs, context))

    def refuse(self, number: int) -> None:
        """Tell the part before."""
        self.links.send_back(Message(Kind.REFUSED, number))
        if self.links.gets_gradients:
            self._sent.append(Sent(number, None, None))


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers in some tensors are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())
