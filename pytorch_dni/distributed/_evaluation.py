"""Evaluation: batches pass through all parts, and the last one computes a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ._links import Links
from ._message import Kind, Message
from ._part import PartRunner
from ._place import Place

Metric = Callable[..., "Tensor | float"]


class Evaluation:
    """One evaluation.

    Args:
        part: The part of this rank.
        links: Its channels.
        place: Its place.
        metric: Computes the mean of a metric over a batch, in the last part.
    """

    def __init__(self, part: PartRunner, links: Links, place: Place, metric: Metric) -> None:
        self._part, self._links, self._place, self._metric = part, links, place, metric

    def run(self, source: Iterable[Message], rows: int) -> tuple[float, int] | None:
        """Pass all batches on.

        Args:
            source: Messages of batches.
            rows: The most samples in a message.

        Returns:
            In the last part, the sum of the metric over samples, and their number.
        """
        mode = self._part.module.training
        self._part.module.eval()
        total, count = 0.0, 0
        try:
            with torch.no_grad():
                for message in self._pieces(source, rows):
                    inputs, extras = self._links.inputs_and_extras(message)
                    outputs = self._part.evaluate(inputs)
                    self._links.send_on(message._replace(tensors=[*outputs, *extras]))
                    if self._place.is_last:
                        size = len(extras[0])
                        value = self._metric(*outputs, extras[0].to(self._part.device))
                        total, count = total + float(value) * size, count + size
        finally:
            self._part.module.train(mode)
        self._links.send_on(Message(Kind.END, -1))
        return (total, count) if self._place.is_last else None

    def _pieces(self, source: Iterable[Message], rows: int) -> Iterator[Message]:
        for message in source:
            tensors = [tensor for tensor in message.tensors if tensor is not None]
            if self._place.is_first and len(tensors[-1]) > rows:
                for piece in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
                    yield message._replace(tensors=piece)
            else:
                yield message
