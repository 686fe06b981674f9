"""What an interface in time is told about windows and losses, which only critics learn from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..context import Context
from ..errors import DNIError
from ._stability import nothing


class Observer:
    """Learns nothing from losses; critics override this.

    Attributes:
        owner: What error messages call the interface.
    """

    owner: str

    def begin_window(
        self, state: Tensor, context: Context | None, continued: Tensor, valid_mask: Tensor
    ) -> None:
        """Note that a window begins with a state, for critics; see :class:`ObservedLosses`."""

    def begin_sequence(self) -> None:
        """Note that the last state of the window before was not carried on."""

    def observe(self, losses: Tensor) -> None:
        """Note the losses of the window that has run, for critics.

        Raises:
            DNIError: The synthesizer is no critic.
        """
        raise DNIError(f"{self.owner}: observe() is for critics: give dni_network=Critic_DNI")

    def learn_observed(self) -> None:
        """In a backward pass, learn from losses that were observed."""

    def keep_losses(self) -> Callable[[], None]:
        """Return what takes back all that is noted from now on."""
        return nothing
