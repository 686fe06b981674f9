"""What training and evaluation of a pipeline return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class TrainingReport(NamedTuple):
    """What one call of :meth:`Stage.train` did; equal on all ranks.

    Attributes:
        batches: Number of batches.
        samples: Number of samples, in the first dimension of the targets.
        seconds: Time of the first part.
        loss: Mean of the last part's loss; NaN without any.
        waiting: By rank, the share of time in which it waited for others.
        refused: By rank, how many batches it refused, since their numbers were not finite.
        synthesised: By rank, how many batches it has learned from synthesised activations.
        ended: Whether there are no more batches, rather than ``limit`` reached.
    """

    batches: int
    samples: int
    seconds: float
    loss: float
    waiting: list[float]
    refused: list[int]
    synthesised: list[int]
    ended: bool

    @classmethod
    def of(cls, ranks: Sequence[dict[str, Any]], replicas: int) -> TrainingReport:
        """Return the report of all ranks from what each of them has measured."""
        losses = [rank["loss"] for rank in ranks if rank["loss"] is not None]
        return cls(
            ranks[0]["batches"],
            sum(rank["samples"] for rank in ranks[:replicas]),
            ranks[0]["seconds"],
            sum(losses) / len(losses) if losses else math.nan,
            [rank["waiting"] for rank in ranks],
            [rank["refused"] for rank in ranks],
            [rank["synthesised"] for rank in ranks],
            ranks[0]["ended"],
        )

    @property
    def samples_per_second(self) -> float:
        """Samples per second."""
        return self.samples / max(self.seconds, 1e-9)
