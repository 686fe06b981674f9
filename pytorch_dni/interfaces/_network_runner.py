"""Calling synthesizers that derive from ``DNI_Network``."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from .._normalization import Scalar
from .._tree import map_tensors
from ..context import Context
from ..errors import SynthesizerError
from ..synthesizers import DNI_Network, Feedback_DNI, LocalLoss_DNI
from ..synthesizers.base import Hidden
from ._error import ScaledError
from ._run import Run, Taped
from ._runner import Runner


class NetworkRunner(Runner):
    """For ``forward(input, hidden) -> (output, hidden)``, with the context joined to the input."""

    def __init__(
        self, synthesizer: DNI_Network, context_size: int | None, feature_dim: int, owner: str
    ) -> None:
        super().__init__(synthesizer, context_size, feature_dim, owner)
        self._move_features = feature_dim != -1 and synthesizer.features_last
        # Joined to its input, or given by itself.
        self.takes_error = synthesizer.takes_error or synthesizer.predicts == "feedback"

    def width(self, trigger: Tensor) -> int | None:
        """Return the features that a trigger must have; None where that is not known."""
        synthesizer = self.synthesizer
        assert isinstance(synthesizer, DNI_Network)
        if isinstance(synthesizer, LocalLoss_DNI):
            return synthesizer.width(trigger.dim())
        if self.takes_error or (self.mlp is None and synthesizer.predicts != "return"):
            return None
        return synthesizer.input_size - (self.context_size or 0)

    def fits(self, trigger: Tensor, error: Tensor) -> bool:
        """Return whether the error can be joined to a trigger, at its positions or broadcast."""
        return Context(error).fits(trigger, self._error_size(trigger), self.feature_dim)

    def _error_size(self, trigger: Tensor) -> int:
        assert isinstance(self.synthesizer, DNI_Network)
        known = trigger.shape[self.feature_dim] + (self.context_size or 0)
        return self.synthesizer.input_size - known

    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Predict; call under ``no_grad``, with a context that was checked."""
        input = self.joined(trigger, context)
        if error is None:
            self.check_needs_no_error()
        else:
            scaled = Context(error.value / error.unit)
            features = scaled.broadcast_to_trigger(
                trigger, self._error_size(trigger), self.feature_dim, self.owner
            )
            input = torch.cat([input, features.movedim(-1, self.feature_dim)], self.feature_dim)
        if self._move_features:
            input = input.movedim(self.feature_dim, -1)
        if self.mlp is not None:
            dim = self.feature_dim if self._move_features else -1
            run = self._recorded(self.mlp, input, unit, dim)
        else:
            with torch.enable_grad():
                output, hidden = self._checked(self.synthesizer(input, hidden), "input, hidden")
            run = Run(output, map_tensors(hidden, Tensor.detach))
        return self._moved_back(run) if self._move_features else run

    def _checked(self, returned: object, arguments: str) -> tuple[Tensor, Hidden]:
        """Return what the synthesizer returned, which must be a prediction and a state.

        Raises:
            SynthesizerError: It is something else. A tensor of two samples could be unpacked, too.
        """
        if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], Tensor):
            return returned
        found = type(returned).__name__
        if isinstance(returned, tuple):
            found = f"({', '.join(type(item).__name__ for item in returned)})"
        raise SynthesizerError(
            f"{self.owner}: forward({arguments}) of the synthesizer "
            f"({type(self.synthesizer).__name__}) returned {found}: it must return (output, "
            "hidden), the prediction and the state for the next call, which may be None"
        )

    def _moved_back(self, run: Run) -> Run:
        with torch.enable_grad():
            return run._replace(output=run.output.movedim(-1, self.feature_dim))


class FeedbackRunner(NetworkRunner):
    """For synthesizers with ``predicts = "feedback"``, which are given the error by itself."""

    #: The last shapes that fitted: asking anew at each step takes as long as a small kernel.
    _fitting: tuple[Size, Size] | None = None

    def fits(self, trigger: Tensor, error: Tensor) -> bool:
        """Return whether the synthesizer maps such an error to such a trigger's gradient."""
        shapes = trigger.shape, error.shape
        if shapes != self._fitting:
            fits = getattr(self.synthesizer, "fits", None)
            if fits is not None and not fits(error, trigger.movedim(self.feature_dim, -1)):
                return False
            self._fitting = shapes
        return True

    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Predict; call under ``no_grad``, with an error that fits."""
        if error is None:
            self.check_needs_no_error()
        assert error is not None
        moved = trigger if self.feature_dim == -1 else trigger.movedim(self.feature_dim, -1)
        run = self._by_hand(moved, unit, error)
        if run is None:
            with torch.enable_grad():
                returned = self.synthesizer(moved, hidden, error.value / error.unit)
                output, hidden = self._checked(returned, "input, hidden, error")
                if output.shape == moved.shape:  # a wrong shape is to be found, not broadcast
                    output = output + error.decay * moved
            run = Run(output, map_tensors(hidden, Tensor.detach))
        return run if self.feature_dim == -1 else self._moved_back(run)

    def _by_hand(self, trigger: Tensor, unit: Scalar, error: ScaledError) -> Run | None:
        if not isinstance(self.synthesizer, Feedback_DNI):
            return None
        on_device = isinstance(unit, Tensor) or isinstance(error.unit, Tensor)
        if on_device or isinstance(error.decay, Tensor):
            # On an accelerator, reading the units would stall the queue.
            unit = 1.0
            recorded = self.synthesizer.record(trigger, error.value / error.unit, 1.0, 1.0)
        else:
            recorded = self.synthesizer.record(
                trigger, error.value, float(error.unit), float(unit), float(error.decay)
            )
        if recorded is None:
            return None
        output, tape = recorded
        if isinstance(error.decay, Tensor):
            output = output + error.decay * trigger
        return Run(output, None, Taped(self.synthesizer, tape, self.feature_dim), unit)
