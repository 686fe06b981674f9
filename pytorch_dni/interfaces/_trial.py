"""A synthesizer is asked once before anything learns: a wrong one is an error in time."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..context import Context
from ..errors import DNIError, SynthesizerDefectError, SynthesizerError
from ..synthesizers.base import Hidden
from ._modes import synthesizer_mode
from ._runner import Runner


def check_answer(
    runner: Runner, owner: str, trigger: Tensor, context: Context | None, hidden: Hidden
) -> None:
    """Ask a copy of a synthesizer for a gradient; the synthesizer and random numbers stay as is.

    What cannot be copied is not asked.

    Args:
        runner: Calls the synthesizer.
        owner: What error messages call the interface.
        trigger: The activation, in the synthesizer's type.
        context: Its context, which was checked.
        hidden: State of the synthesizer.

    Raises:
        SynthesizerError: It raises, or does not return what it must, or in a wrong shape.
    """
    try:
        runner = copy.deepcopy(runner)
    except Exception:
        return
    devices = [trigger.device] if trigger.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), synthesizer_mode(trigger.device.type):
            run = runner.run(trigger, context, hidden, 1.0)
    except DNIError:
        raise
    except Exception as reason:
        raise SynthesizerDefectError(
            f"the synthesizer of {owner} ({type(runner.synthesizer).__name__}) does not take an "
            f"activation of shape {tuple(trigger.shape)}: {type(reason).__name__}: {reason}"
        ) from reason
    check_gradient(runner, owner, run.output, trigger)


def check_gradient(runner: Runner, owner: str, message: Tensor, trigger: Tensor) -> None:
    """Raise :class:`SynthesizerError` where a predicted gradient is not of the trigger's shape."""
    if message.shape != trigger.shape:
        raise SynthesizerError(
            f"the synthesizer of {owner} ({type(runner.synthesizer).__name__}) predicts shape "
            f"{tuple(message.shape)} for an activation of shape {tuple(trigger.shape)}: make its "
            "output_size the activation's features"
        )
