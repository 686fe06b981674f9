"""Parts of a network trained by different processes: a pipeline on ``torch.distributed``."""

from ..errors import LostRankError
from ._checkpoint import latest_checkpoint, load_checkpoint
from ._place import Connection, Place
from ._results import TrainingReport
from ._split import split
from ._stage import Stage
from ._transport import Transport, Work

__all__ = [
    "Connection",
    "latest_checkpoint",
    "load_checkpoint",
    "LostRankError",
    "Place",
    "split",
    "Stage",
    "TrainingReport",
    "Transport",
    "Work",
]
