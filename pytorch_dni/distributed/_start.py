"""The start of a pipeline: settings that all ranks share, and shapes from one example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor

from ..errors import DNIError
from ..placement._untouched import untouched
from ._message import Kind, Layout, Message, Slot
from ._notices import Notices
from ._part import bare, PartRunner
from ._place import Place
from ._transport import Transport


def agree(notices: Notices, settings: dict[str, Any], problem: str | None = None) -> None:
    """Check that all ranks have the same settings.

    Args:
        notices: Texts for the other ranks.
        settings: The settings of this rank.
        problem: What is wrong on this rank alone.

    Raises:
        DNIError: They differ, or a rank has a problem; all ranks raise it.
        LostRankError: A rank does not answer.
    """
    notices.publish("problem", problem)
    notices.publish("settings", settings)
    everyone = notices.read_all("settings")
    for rank, found in enumerate(notices.read_all("problem")):
        if found is not None:
            raise DNIError(f"rank {rank}: {found}")
    differences = [
        f"{name} is {everyone[0].get(name)!r} on rank 0 and {theirs.get(name)!r} on rank {rank}"
        for rank, theirs in enumerate(everyone)
        for name in dict.fromkeys([*everyone[0], *theirs])
        if theirs.get(name) != everyone[0].get(name)
    ]
    if differences:
        raise DNIError(
            f"the ranks of the pipeline differ: {'; '.join(differences)}. Start all of them with "
            "the same program and options"
        )


class Example(NamedTuple):
    """What a part gets and returns for the example batch.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs; those that need a gradient say so.
        extras: What travels on to the last part.
        error_shape: Shape of the network's output.
        error_dtype: Its type.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    extras: list[Tensor]
    error_shape: list[int]
    error_dtype: torch.dtype


def first_tensors(example: object) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs of the network, and target and context, of a batch.

    Args:
        example: ``(input, target)`` or ``(input, target, context)``; an input is a tensor, or a
            tuple or list of tensors.

    Raises:
        DNIError: It is something else.
    """
    if not isinstance(example, (tuple, list)) or len(example) not in (2, 3):
        raise DNIError(
            "a batch must be (input, target) or (input, target, context), not "
            f"{type(example).__name__}: the first part gets all of it, and sends on what the "
            "others need"
        )
    inputs = [*example[0]] if isinstance(example[0], (tuple, list)) else [example[0]]
    for tensor in (*inputs, *example[1:]):
        if not isinstance(tensor, Tensor):
            raise DNIError(f"a batch must hold tensors, not {type(tensor).__name__}")
    return inputs, [*example[1:]]


class Trial:
    """Runs the example through all parts once, without a trace, before any message is sent.

    Args:
        place: The place of this rank.
        notices: Texts for the other ranks.
        transport: Sends the example.
        timeout: The most seconds to wait for it.
        tag: Tag of its message.
    """

    def __init__(
        self, place: Place, notices: Notices, transport: Transport, timeout: float, tag: int
    ) -> None:
        self._place, self._notices = place, notices
        self._transport, self._timeout, self._tag = transport, timeout, tag

    def run(self, part: PartRunner, example: object, carries_input: bool) -> Example:
        """Return what the part gets and returns.

        Args:
            part: The part.
            example: A batch; the first part uses it.
            carries_input: Whether the input of the network travels on to all parts.

        Raises:
            DNIError: A part cannot process what the part before returns. All ranks raise it.
            LostRankError: A rank does not answer.
        """
        inputs, extras = self._receive(example)
        if carries_input and self._place.is_first:
            extras = [*extras, inputs[0]]
        try:
            outputs = self._outputs(part, inputs)
        except Exception as error:
            self._fail(part.module, inputs, error)
            raise
        described = {
            "inputs": [_describe(tensor) for tensor in outputs],
            "extras": [_describe(tensor) for tensor in extras],
        }
        self._notices.publish("example", described)
        if not self._place.is_last:
            self._send([*outputs, *extras])
        last = self._read(self._place.rank_of(self._place.parts - 1))
        dtype, shape = last["inputs"][0]
        return Example(inputs, outputs, extras, shape, getattr(torch, dtype))

    def _outputs(self, part: PartRunner, inputs: Sequence[Tensor]) -> list[Tensor]:
        # In a pass of DistributedDataParallel a backward pass must follow.
        module = bare(part.module)
        runner = PartRunner(module, self._place.part, None, None, part.device)
        if not self._place.is_first:
            runner.ask_input_gradients()
        with untouched(module, inputs):
            return runner.forward(inputs).outputs

    def _fail(self, module: nn.Module, inputs: Sequence[Tensor], error: Exception) -> None:
        given = ", ".join(f"{tuple(t.shape)} in {t.dtype}" for t in inputs)
        first = str(error).splitlines()[0] if str(error) else ""
        reason = (
            f"part {self._place.part} ({type(module).__name__}) cannot process the example, "
            f"{given}: {type(error).__name__}: {first}. The parts of all ranks must follow one "
            "another, and have the types of what they get"
        )
        self._notices.publish("example", {"error": reason})
        raise DNIError(reason) from error

    def _receive(self, example: object) -> tuple[list[Tensor], list[Tensor]]:
        if self._place.is_first:
            try:
                return first_tensors(example)
            except DNIError as error:
                self._notices.publish("example", {"error": str(error)})
                raise
        sent = self._read(self._place.previous)
        shapes = [*sent["inputs"], *sent["extras"]]
        slots = [Slot.of(torch.empty(shape, dtype=getattr(torch, t))) for t, shape in shapes]
        layout = Layout(slots, "the example")
        buffer = torch.empty(layout.nbytes, dtype=torch.uint8)
        work = self._transport.receive(buffer, self._place.previous, self._tag)
        work.wait(self._timeout)
        tensors = [tensor for tensor in layout.unpack(buffer).tensors if tensor is not None]
        count = len(sent["inputs"])
        return tensors[:count], tensors[count:]

    def _send(self, tensors: Sequence[Tensor]) -> None:
        layout = Layout([Slot.of(tensor) for tensor in tensors], "the example")
        buffer = layout.pack(Message(Kind.TRAIN, 0, tensors))
        self._transport.send(buffer, self._place.next, self._tag).wait(self._timeout)

    def _read(self, rank: int) -> dict[str, Any]:
        """Wait for what a rank says of the example, and pass an error on."""
        found: dict[str, Any] = self._notices.read("example", rank)
        if "error" in found:
            self._notices.publish("example", found)
            raise DNIError(str(found["error"]))
        return found


def _describe(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype).removeprefix("torch."), [*tensor.shape]]
