"""How many threads compute on the CPU: one for a small network, where more only wait."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn, Tensor

# Multiplications in the forward pass of the largest layer. Below it, threads wait for each other
# longer than they compute.
_SMALL = 2**26


def use(given: int | None, network: nn.Module, input: Tensor) -> int:
    """Set the number of threads, and return it.

    Args:
        given: The number, or None to choose one by the size of the network.
        network: The network.
        input: Input of a training step.
    """
    # On an accelerator, threads of the CPU hardly matter.
    if given is None and input.device.type == "cpu" and largest_layer(network, input) < _SMALL:
        given = 1
    if given is not None:
        torch.set_num_threads(given)
    return torch.get_num_threads()


def largest_layer(network: nn.Module, input: Tensor) -> int:
    """Return the most multiplications that a layer needs at once in the forward pass.

    Those of a recurrent layer are counted for one time step: the steps wait for each other. The
    network and the random numbers stay as they are.
    """
    counts = [0]

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.RNNBase):
            batch = args[0].shape[0 if module.batch_first else 1]
            counts.append(batch * module.get_parameter("weight_hh_l0").numel())
        elif isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            counts.append(output.numel() * module.weight[0].numel())

    copied = copy.deepcopy(network)
    for module in copied.modules():
        module.register_forward_hook(count)
    with torch.random.fork_rng(devices=[]):
        copied(input)
    return max(counts)
