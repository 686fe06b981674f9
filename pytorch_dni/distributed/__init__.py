"""Parts of a network trained by different processes: a pipeline on ``torch.distributed``."""

from ..errors import LostRankError
from ._place import Connection, Place
from ._results import TrainingReport
from ._stage import Stage
from ._transport import Transport, Work

__all__ = [
    "Connection",
    "LostRankError",
    "Place",
    "Stage",
    "TrainingReport",
    "Transport",
    "Work",
]
