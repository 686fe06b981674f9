"""A callback of the ``Trainer`` of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from ._figures import figures

try:
    from transformers import TrainerCallback
except ImportError as missing:
    raise ImportError("TrainerStats needs transformers: pip install transformers") from missing


class TrainerStats(TrainerCallback):
    """Adds the figures of all wrapped networks to what the ``Trainer`` logs.

    They are in the state's ``log_history``, and in the logs of callbacks that are called later.

    Args:
        prefix: First part of the names.

    Example::

        trainer = Trainer(model=DNI(network), callbacks=[TrainerStats()], ...)
    """

    def __init__(self, prefix: str = "dni") -> None:
        self._prefix = prefix

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **more: Any
    ) -> None:
        """Add the figures to the logs of a training step."""
        # Without a loss these are the logs of an evaluation, or of the end.
        if model is None or logs is None or "loss" not in logs:
            return
        found = figures(model, self._prefix)
        logs.update(found)
        if state.log_history:
            state.log_history[-1].update(found)
