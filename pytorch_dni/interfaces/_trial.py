"""A synthesizer is asked once before anything learns: a wrong one is an error in time."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..context import Context
from ..errors import DNIError, SynthesizerDefectError, SynthesizerError
from ..synthesizers import DNI_Network, Feedback_DNI
from ..synthesizers.base import Hidden
from ._error import ScaledError
from ._modes import synthesizer_mode
from ._runner import Runner


def may_answer_wrongly(runner: Runner) -> bool:
    """Return whether the user has written the synthesizer's ``forward``, as far as can be told."""
    predicts = getattr(runner.synthesizer, "predicts", DNI_Network.predicts)
    own = type(runner.synthesizer).forward is not Feedback_DNI.forward
    return own and runner.mlp is None and predicts in ("gradient", "feedback")


def check_answer(
    runner: Runner,
    owner: str,
    trigger: Tensor,
    context: Context | None,
    hidden: Hidden,
    error: ScaledError | None = None,
) -> None:
    """Ask a copy of a synthesizer for a gradient; the synthesizer and random numbers stay as is.

    What cannot be copied is not asked, nor with an error that does not fit the activation.

    Args:
        runner: Calls the synthesizer.
        owner: What error messages call the interface.
        trigger: The activation, in the synthesizer's type.
        context: Its context, which was checked.
        hidden: State of the synthesizer.
        error: The error, or one of its shape, for synthesizers that take one.

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
            if error is not None and not runner.fits(trigger, error.value):
                return
            run = runner.run(trigger, context, hidden, 1.0, error)
    except DNIError:
        raise
    except Exception as reason:
        raise _defect(runner, owner, trigger, error, reason) from reason
    check_gradient(runner, owner, run.output, trigger)


def _defect(
    runner: Runner, owner: str, trigger: Tensor, error: ScaledError | None, reason: Exception
) -> SynthesizerDefectError:
    given = f"an activation of shape {tuple(trigger.shape)}"
    if error is not None:
        given += f" and an error of shape {tuple(error.value.shape)}"
    return SynthesizerDefectError(
        f"the synthesizer of {owner} ({type(runner.synthesizer).__name__}) does not take {given}: "
        f"{type(reason).__name__}: {reason}"
    )


def check_gradient(runner: Runner, owner: str, message: Tensor, trigger: Tensor) -> None:
    """Raise :class:`SynthesizerError` where a predicted gradient is not of the trigger's shape."""
    if message.shape != trigger.shape:
        raise SynthesizerError(
            f"the synthesizer of {owner} ({type(runner.synthesizer).__name__}) predicts shape "
            f"{tuple(message.shape)} for an activation of shape {tuple(trigger.shape)}: make its "
            "output_size the activation's features"
        )
