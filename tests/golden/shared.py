"""The names that the cases share with the other tests."""

from pytorch_dni import FutureGradient
from tests.support.eager_nets import LAYERS as ELSEWHERE
from tests.support.recurrent_zoo import data, NETWORKS, rebuilt, tensors
from tests.support.zoo import ZOO

__all__ = ["data", "ELSEWHERE", "FutureGradient", "NETWORKS", "rebuilt", "tensors", "ZOO"]
