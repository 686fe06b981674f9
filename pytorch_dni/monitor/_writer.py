"""Figures for TensorBoard, and for whatever takes scalars as it does."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from .._checks import check_whole
from ..errors import DNIError
from ._figures import figures, wrappers


class ScalarWriter(Protocol):
    """What :class:`StatsWriter` needs of a writer; TensorBoard's ``SummaryWriter`` has it."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Keep one figure of a step."""


class StatsWriter:
    """Writes the figures of a wrapped network in one step of so many.

    Args:
        module: A wrapped network, or a module that holds some.
        writer: Has ``add_scalar(tag, value, step)``, like ``SummaryWriter``.
        every: One call of :meth:`step` in so many writes.
        prefix: First part of the tags.

    Raises:
        DNIError: The module holds no wrapped network, or an argument is wrong.

    Example::

        stats = StatsWriter(net, SummaryWriter())
        for x, y in loader:
            ...
            opt.step()
            stats.step()
    """

    def __init__(
        self, module: nn.Module, writer: ScalarWriter, every: int = 100, prefix: str = "dni"
    ) -> None:
        if not isinstance(module, nn.Module) or not wrappers(module):
            raise DNIError(
                f"StatsWriter: {type(module).__name__} holds no wrapped network: give the result "
                "of DNI(network), or a module that holds it"
            )
        if not callable(getattr(writer, "add_scalar", None)):
            raise DNIError(
                f"StatsWriter: {type(writer).__name__} has no method add_scalar(tag, value, step): "
                "give a writer like torch.utils.tensorboard.SummaryWriter"
            )
        check_whole("every", every, 1)
        self._module = module
        self._writer = writer
        self._every = every
        self._prefix = prefix
        self._steps = 0

    def step(self, step: int | None = None) -> None:
        """Count a training step, and write the figures if it is due.

        Args:
            step: Number of the step, for the writer; None takes the number of calls so far.
        """
        self._steps += 1
        if self._steps % self._every:
            return
        number = self._steps if step is None else step
        for name, value in figures(self._module, self._prefix).items():
            self._writer.add_scalar(name, value, number)
