"""What a part does by the full unlock: without an input, it learns from synthesised ones."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from ..context import current_context, synthesizer_context
from ..errors import DNIError
from ..interfaces import ForwardInterface
from ..synthesizers._from_input import input_synthesizer
from ._cut import seeded
from ._part import Batch, PartPass
from ._start import Example
from ._trainers import is_finite, UpdateTrainer

_REMEMBERED = 8  # batches whose inputs and targets are kept


class FullTrainer(UpdateTrainer):
    """Learns by the update unlock, and goes on where no activation comes for a while.

    The input of the network travels with the activations. A forward interface learns to predict the
    activation from it. Where nothing came for ``patience`` seconds, the part learns from
    activations that are predicted for the inputs, targets and contexts of its last batches, each at
    most once.

    Args:
        arguments: Those of :class:`UpdateTrainer`.
        patience: Seconds.
        interface: Predicts activations; None in the first part.
        options: Those of :class:`UpdateTrainer`.

    """

    def __init__(
        self, *arguments: Any, patience: float, interface: ForwardInterface | None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.patience = None if interface is None else patience
        self.interface = interface
        self._remembered: deque[Batch] = deque(maxlen=_REMEMBERED)

    def forward(self, batch: Batch) -> PartPass:
        """Run the part, after its activation has taught the forward interface."""
        if self.interface is not None:
            with self._input_scope(batch):
                self.interface.send(batch.inputs[0].to(self.part.device), self._trigger(batch))
            self._remembered.append(batch._replace(inputs=[]))
        return super().forward(batch)

    def learn_idle(self) -> bool:
        """Learn from a synthesised activation; return whether there was a batch for it."""
        if not self._remembered or self.interface is None:
            return False
        batch = self._remembered.popleft()
        with self._input_scope(batch):
            activation = self.interface.receive(self._trigger(batch))
        with self.scope(batch):
            done = self.part.forward([activation])
            if self.loss is not None:
                loss = self.part.loss(done, batch.extras[0], self.loss)
                if loss.isfinite():
                    self.part.learn_loss(loss)
            elif self.cut is not None and is_finite(done.outputs):
                self.part.learn(done, self.cut.predict(done.outputs, current_context()))
        self.synthesised += 1
        return True

    def _trigger(self, batch: Batch) -> Tensor:
        return batch.extras[-1].to(self.part.device)

    def _input_scope(self, batch: Batch) -> AbstractContextManager[None]:
        assert self.interface is not None
        takes = self.interface.context_size is not None
        return synthesizer_context(self.context_of(batch) if takes else None)


def forward_interface(number: int, example: Example, context_size: int | None) -> ForwardInterface:
    """Return the interface that predicts the activation which a part gets.

    Raises:
        DNIError: The part gets something else than one floating-point activation.
    """
    inputs, trigger = example.inputs, example.extras[-1]
    if len(inputs) != 1 or not inputs[0].is_floating_point() or not trigger.is_floating_point():
        raise DNIError(
            f"unlock='full' predicts the one activation that part {number} gets from the input of "
            f"the network, but it gets {len(inputs)} tensors, or they are no floating-point "
            "numbers: take another unlock, or cut elsewhere"
        )
    dim = 1 if inputs[0].dim() in (4, 5) else -1
    name = f"input of part {number}"
    with seeded(name):
        made = input_synthesizer(trigger.shape, inputs[0].shape, dim, context_size, None)
    return ForwardInterface(made.to(inputs[0].device), context_size=context_size, name=name)
