"""A callback of Lightning that logs the figures of wrapped networks."""

from __future__ import annotations

from typing import Any

from .._checks import check_whole
from ._figures import figures

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as missing:
    try:
        from pytorch_lightning.callbacks import Callback
    except ImportError:
        raise ImportError("LightningStats needs Lightning: pip install lightning") from missing


class LightningStats(Callback):
    """Logs the figures of all wrapped networks in a ``LightningModule``.

    Args:
        every: One batch in so many is logged.
        prefix: First part of the names.

    Example::

        trainer = Trainer(callbacks=[LightningStats()])
    """

    def __init__(self, every: int = 100, prefix: str = "dni") -> None:
        super().__init__()
        check_whole("every", every, 1)
        self._every = every
        self._prefix = prefix

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any, **more: Any) -> None:
        """Log the figures after a batch of training."""
        if (trainer.fit_loop.total_batch_idx + 1) % self._every == 0:
            pl_module.log_dict(figures(pl_module, self._prefix))
