"""The names that the cases share with the other tests."""

from tests.support.eager_nets import LAYERS as ELSEWHERE
from tests.support.recurrent_zoo import data, NETWORKS, rebuilt, tensors
from tests.support.zoo import ZOO

try:
    from pytorch_dni import FutureGradient
except ImportError:  # the name that it had before
    from pytorch_dni import Future as FutureGradient

__all__ = ["data", "ELSEWHERE", "FutureGradient", "NETWORKS", "rebuilt", "tensors", "ZOO"]
