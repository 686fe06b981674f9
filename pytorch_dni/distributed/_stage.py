"""A stage: the part of a rank, its optimizer, and the interface behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .._statistics import InterfaceStats
from ._build import build, check_options, FlowOptions, StageUnlock
from ._cut import SynthesizerOptions, SynthesizerSpec
from ._evaluation import Evaluation, Metric
from ._message import Kind, Message
from ._meter import Meter
from ._place import Connection
from ._results import TrainingReport
from ._sources import Loader, received
from ._stored_stage import StoredStage
from ._trainers import Loss


class Stage(StoredStage):
    """One part of a network, which this rank trains; the other ranks train the others.

    Every rank makes one, with the same options, and then runs the same calls. Batches are given to
    the first part alone. Targets and contexts travel with the activations::

        stage = Stage(part, optimizer, loss=F.cross_entropy, example=(images, labels),
                      synthesizer=LocalLoss_DNI, context_size=10)
        report = stage.train(loader)

    Args:
        part: The part of this rank: any module that takes what the part before returns, and returns
            a tensor, or a tuple of tensors.
        optimizer: Optimizer of its parameters; None where it has none.
        loss: ``loss(output, target) -> scalar``; the last part uses it.
        example: A batch of the largest size, ``(input, target)`` or ``(input, target, context)``,
            from which all shapes and types are found; the first part uses it.
        unlock: ``"update"``: each part learns from synthetic gradients at once. ``"backward"``: the
            last part sends its error straight to every part, which predicts its gradient from it.
            ``"full"``: as ``"update"``, and a part that gets no activation for a while learns from
            activations that it predicts from the network's input. ``"locked"``: a part waits for
            the true gradient, as in backpropagation.
        synthesizer: Predicts the gradients at the end of the part: a class, a callable
            ``(name, output) -> module``, a synthesizer or a :class:`BackwardInterface`; None takes
            :class:`LocalError_DNI` with a ``context_size``, and :class:`Linear_DNI` or
            :class:`Conv2d_DNI` without; by the backward unlock, :class:`Feedback_DNI`.
        synthesizer_params: Further parameters of a class.
        context_size: Width of the context, for labels the number of classes. The context is the
            third tensor of a batch, or else the target.
        feature_dim: Dimension of features or channels in what the part returns; None takes 1 for
            maps, and the last one otherwise.
        max_in_flight: How many batches a part may have passed on whose true gradient has not been
            learned. A fast part is held back.
        replicas: How many ranks train each part, each on its own batches, with the mean of their
            gradients (``DistributedDataParallel``). Ranks of one part follow one another.
        scheduler: Steps after each step of the optimizer.
        name: Name of the interface, in checkpoints; None takes the number of the part.
        timeout: The most seconds to wait for another rank before it counts as lost.
        patience: With ``unlock="full"``, seconds without an activation after which a part learns
            from synthesised ones.
        connection: How ranks are reached; None takes the default process group.

    Attributes:
        part: The part.
        optimizer: Its optimizer.
        scheduler: Its scheduler.
        place: Which part this is.
        cut: The interfaces at its end; None where there are none.
        batches: How many batches have been trained on.

    Raises:
        DNIError: An argument is wrong, ranks differ in their options, or a part cannot process what
            the part before returns. All ranks raise it.
        LostRankError: A rank does not answer.
    """

    def __init__(
        self,
        part: nn.Module,
        optimizer: Optimizer | None,
        *,
        loss: Loss | None = None,
        example: object = None,
        unlock: StageUnlock = "update",
        synthesizer: SynthesizerSpec = None,
        synthesizer_params: Mapping[str, Any] | None = None,
        context_size: int | None = None,
        feature_dim: int | None = None,
        max_in_flight: int = 2,
        replicas: int = 1,
        scheduler: LRScheduler | None = None,
        name: str | None = None,
        timeout: float = 300.0,
        patience: float = 0.01,
        connection: Connection | None = None,
    ) -> None:
        flow = FlowOptions(unlock, max_in_flight, replicas, timeout, patience)
        check_options(part, optimizer, flow)
        params = dict(synthesizer_params or {})
        synthesizers = SynthesizerOptions(synthesizer, params, context_size, feature_dim)
        own = Connection.of_process_group() if connection is None else connection
        built = build(part, optimizer, scheduler, loss, example, flow, synthesizers, name, own)
        self.part, self.optimizer, self.scheduler = part, optimizer, scheduler
        self.place, self.cut, self.batches = built.place, built.cut, 0
        self._notices, self._links, self._trainer = built.notices, built.links, built.trainer
        self._input = built.trainer.interface
        self._waiting, self._runner = built.waiting, built.runner
        self._extras, self._rows = built.extras, built.rows
        self._calls, self._unlock = 0, unlock

    def train(
        self,
        batches: Iterable[object] | None = None,
        limit: int | None = None,
        progress: bool = False,
    ) -> TrainingReport:
        """Train on batches, and finish what is under way: no message is left between the ranks.

        Args:
            batches: ``(input, target)`` or ``(input, target, context)`` each; only the first part
                reads them. The last batch may be smaller.
            limit: The most batches, equal on all ranks; None for all.
            progress: Whether the first rank shows a bar of tqdm, with samples per second and the
                share of time that each part waits.

        Raises:
            LostRankError: A rank is lost.
            DNIError: A batch does not have the form of the example.
        """
        self._calls += 1
        self.part.train()
        loader = self._loader(batches, Kind.TRAIN, limit)
        meter = Meter(self._notices, self.place, self._waiting, progress, self._calls)
        refused, synthesised = self._trainer.refused, self._trainer.synthesised
        with meter:
            self._trainer.train(self._source(loader, self._trainer.patience), meter.count)
        name = f"trained/{self._calls}"
        mine = meter.measured()
        mine["loss"] = self._trainer.take_losses()
        mine["refused"] = self._trainer.refused - refused
        mine["synthesised"] = self._trainer.synthesised - synthesised
        mine["ended"] = loader is None or loader.ended
        self._notices.publish(name, mine)
        report = TrainingReport.of(self._notices.read_all(name), self.place.replicas)
        self.batches += report.batches
        return report

    def evaluate(self, batches: Iterable[object] | None, metric: Metric) -> float:
        """Return the mean of a metric over batches, which pass through all parts in ``eval()``.

        Args:
            batches: As in :meth:`train`; only the first part reads them. Larger batches than the
                example are divided.
            metric: ``metric(output, target) -> scalar``, a mean over the samples; the last part
                uses it.

        Returns:
            The mean over all samples, on all ranks.

        Raises:
            LostRankError: A rank is lost.
        """
        self._calls += 1
        loader = self._loader(batches, Kind.EVALUATE, None)
        evaluation = Evaluation(self._runner, self._links, self.place, metric)
        found = evaluation.run(self._source(loader), self._rows)
        self._notices.publish(f"evaluated/{self._calls}", found)
        everyone = self._notices.read_all(f"evaluated/{self._calls}")
        last = [sums for sums in everyone if sums is not None]
        mean: float = sum(s for s, _ in last) / max(sum(n for _, n in last), 1)
        return mean

    def stats(self) -> dict[str, InterfaceStats]:
        """Return how well the synthesizers of this part predict, by name."""
        return {interface.owner: interface.stats() for interface in self.interfaces()}

    def close(self) -> None:
        """End the exchange of messages; every rank has to call it, after its last other call.

        Raises:
            LostRankError: A rank is lost.
        """
        self._links.close()

    def _loader(
        self, batches: Iterable[object] | None, kind: Kind, limit: int | None
    ) -> Loader | None:
        if not self.place.is_first:
            return None
        carries = self._unlock == "full"
        return Loader(batches, kind, self.batches, limit, self._extras, carries)

    def _source(self, loader: Loader | None, patience: float | None = None) -> Iterable[Message]:
        if loader is not None:
            return loader
        return received(self._links, patience, self._trainer.learn_idle)
