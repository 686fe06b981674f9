"""How a stage is put together: settings, the example, the interfaces, and the channels."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .._checks import check_choice, check_number, check_whole
from ..errors import DNIError
from ._backward_trainer import BackwardTrainer
from ._channel import Waiting
from ._cut import Cut, SynthesizerOptions
from ._full_trainer import forward_interface, FullTrainer
from ._links import Ends, Links, Slots, TAGS
from ._message import Slot
from ._notices import Notices
from ._part import PartRunner
from ._place import Connection, Place
from ._replicas import agreed, replica_group
from ._start import agree, Example, Trial
from ._trainers import LockedTrainer, Loss, Trainer, UpdateTrainer

TRAINERS: dict[str, type[Trainer]] = {
    "update": UpdateTrainer,
    "backward": BackwardTrainer,
    "full": FullTrainer,
    "locked": LockedTrainer,
}

StageUnlock: TypeAlias = Literal["update", "full", "backward", "locked"]


class FlowOptions(NamedTuple):
    """What the user says about the exchange of messages.

    Attributes:
        unlock: What a part waits for.
        in_flight: How many batches may be sent whose true gradient has not come.
        replicas: How many ranks train each part.
        timeout: The most seconds to wait for another rank.
        patience: Seconds without an activation before a part learns from synthesised ones.
    """

    unlock: StageUnlock
    in_flight: int
    replicas: int
    timeout: float
    patience: float

    @property
    def carries_input(self) -> bool:
        """Whether the input of the network travels on to all parts."""
        return self.unlock == "full"


class Built(NamedTuple):
    """The objects of a stage.

    Attributes:
        place: Which part this is.
        notices: Texts for the other ranks.
        runner: Runs the part.
        cut: The interfaces at its end.
        waiting: Measures the time of waiting.
        links: The channels.
        trainer: Trains the part.
        extras: How many tensors a batch has beside the input.
        rows: Number of samples in the example.
    """

    place: Place
    notices: Notices
    runner: PartRunner
    cut: Cut | None
    waiting: Waiting
    links: Links
    trainer: Trainer
    extras: int
    rows: int


def check_options(part: nn.Module, optimizer: Optimizer | None, flow: FlowOptions) -> None:
    """Raise :class:`DNIError` where an argument of a stage is of a wrong kind."""
    if not isinstance(part, nn.Module):
        raise DNIError(f"a part must be a module, not {type(part).__name__}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise DNIError(f"optimizer must be an optimizer or None, not {type(optimizer).__name__}")
    check_choice("unlock", flow.unlock, [*TRAINERS])
    check_whole("max_in_flight", flow.in_flight, 1)
    check_number("timeout", flow.timeout, 0)
    check_number("patience", flow.patience, 0)
    if flow.unlock == "full" and flow.replicas > 1:
        raise DNIError(
            "unlock='full' lets each rank learn when it waits, but replicas have to learn "
            "together: take replicas=1, or another unlock"
        )
    if flow.unlock == "backward" and flow.replicas > 1 and flow.in_flight > 1:
        raise DNIError(
            "unlock='backward' with replicas runs a part again before its backward pass, which "
            "DistributedDataParallel cannot: take max_in_flight=1, or another unlock"
        )


def build(
    part: nn.Module,
    optimizer: Optimizer | None,
    scheduler: LRScheduler | None,
    loss: Loss | None,
    example: object,
    flow: FlowOptions,
    synthesizers: SynthesizerOptions,
    name: str | None,
    own: Connection,
) -> Built:
    """Build the objects of a stage, together with all other ranks.

    Raises:
        DNIError: The ranks differ, or their parts do not follow one another.
        LostRankError: A rank does not answer.
    """
    place = Place.of(own.rank, own.ranks, flow.replicas)
    number = _number(own)
    notices = Notices(own.store, own.rank, own.ranks, f"dni/{number}", flow.timeout)
    agree(notices, _settings(flow, synthesizers, own), _problem(place, loss))
    device = next((p.device for p in part.parameters()), torch.device("cpu"))
    runner = PartRunner(part, place.part, optimizer, scheduler, device)
    trial = Trial(place, notices, own.transport, flow.timeout, number * TAGS)
    found = trial.run(runner, example, flow.carries_input)
    cut = _cut(flow, synthesizers, found, place, name)
    waiting = Waiting()
    links = _links(own, flow, place, notices, waiting, found, cut, number * TAGS)
    if links.sends_gradients:
        runner.ask_input_gradients()
    trainer = _trainer(runner, cut, links, loss, flow, place, found, synthesizers.context_size)
    extras, rows = len(found.extras) - flow.carries_input, len(found.extras[0])
    return Built(place, notices, runner, cut, waiting, links, trainer, extras, rows)


def _trainer(
    runner: PartRunner,
    cut: Cut | None,
    links: Links,
    loss: Loss | None,
    flow: FlowOptions,
    place: Place,
    found: Example,
    context_size: int | None,
) -> Trainer:
    group = replica_group(place)
    if group is not None:
        runner.replicate(group)
    more: dict[str, Any] = {}
    if flow.unlock == "full":
        made = None if place.is_first else forward_interface(place.part, found, context_size)
        more = {"patience": flow.patience, "interface": made}
    return TRAINERS[flow.unlock](
        runner,
        cut,
        links,
        loss if place.is_last else None,
        flow.in_flight,
        len(found.extras) - flow.carries_input > 1,
        bool if group is None else partial(agreed, group),
        **more,
    )


def _problem(place: Place, loss: object) -> str | None:
    if place.is_last and not callable(loss):
        return "the last part needs a loss: give loss=, such as F.cross_entropy"
    return None


def _number(own: Connection) -> int:
    """Return the number of this stage, equal on all ranks, which make theirs in the same order."""
    number: int = own.store.add(f"dni/stages/{own.rank}", 1)
    return number


def _settings(
    flow: FlowOptions, synthesizers: SynthesizerOptions, own: Connection
) -> dict[str, object]:
    return {
        "the version of pytorch_dni": sys.modules[__name__.partition(".")[0]].__version__,
        "the version of torch": torch.version.__version__,
        "the number of ranks": own.ranks,
        "unlock": flow.unlock,
        "max_in_flight": flow.in_flight,
        "replicas": flow.replicas,
        "context_size": synthesizers.context_size,
    }


def _cut(
    flow: FlowOptions,
    synthesizers: SynthesizerOptions,
    found: Example,
    place: Place,
    name: str | None,
) -> Cut | None:
    if place.is_last or flow.unlock == "locked":
        return None
    name = f"part {place.part}" if name is None else name
    if flow.unlock == "backward":
        shape = [*found.error_shape]
        if len(shape) in (4, 5):
            shape.append(shape.pop(1))
        synthesizers = synthesizers._replace(error_shape=torch.Size(shape))
    learns = [i for i, o in enumerate(found.outputs) if o.requires_grad and o.is_floating_point()]
    names = {i: name if i == learns[0] else f"{name}, output {i}" for i in learns}
    interfaces = {i: synthesizers.build(names[i], found.outputs[i].detach()) for i in learns}
    return Cut(interfaces, len(found.outputs))


def _links(
    own: Connection,
    flow: FlowOptions,
    place: Place,
    notices: Notices,
    waiting: Waiting,
    found: Example,
    cut: Cut | None,
    first_tag: int,
) -> Links:
    """Return the channels; each part learns whether the one before needs gradients."""
    needs = not place.is_last and (cut is None or cut.needs_true)
    notices.publish("needs gradients", needs)
    asked = False if place.is_first else bool(notices.read("needs gradients", place.previous))
    error = []
    if flow.unlock == "backward":
        error = [Slot.of(torch.empty(found.error_shape, dtype=found.error_dtype))]
    slots = Slots(
        [Slot.of(tensor) for tensor in found.inputs],
        [Slot.of(tensor) for tensor in found.outputs],
        [Slot.of(tensor) for tensor in found.extras],
        error,
    )
    depth = flow.in_flight + 2
    ends = Ends(own.transport, waiting, notices.lost, flow.timeout, depth, first_tag)
    return Links(place, slots, ends, needs, asked)
