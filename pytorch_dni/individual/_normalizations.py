"""Rules of normalisation layers, whose weight multiplies the normalised input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import describe, DNIError
from ._layers import unbatched
from ._rules import Gradients, LayerCall, LayerRule


class _LastDimensionsRule(LayerRule):
    """Rule of layers that normalise over their last dimensions, the shape of the weight."""

    depends_on_state = False

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        module: Any = call.module
        shape = module.normalized_shape
        grad = call.output_grad.to(module.weight.dtype)
        if grad.dim() <= len(shape):
            raise unbatched(call, "(batch, ...)")
        forms: dict[str, Gradients] = {"bias": _positions_summed(grad, len(shape))}
        if "weight" in call.wanted:
            product = self._normalized(module, call.input.to(grad.dtype)).mul_(grad)
            forms["weight"] = _positions_summed(product, len(shape))
        return forms

    @abstractmethod
    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        """Return the normalised input, without weight and bias."""


def _positions_summed(grad: Tensor, last: int) -> Tensor:
    """Return the sum over all dimensions between the first and the last ones."""
    return grad.reshape(len(grad), -1, *grad.shape[-last:]).sum(1)


class LayerNormRule(_LastDimensionsRule):
    """Per-example gradients of ``LayerNorm``."""

    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        return F.layer_norm(input, module.normalized_shape, None, None, module.eps)


class RMSNormRule(_LastDimensionsRule):
    """Per-example gradients of ``RMSNorm``."""

    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        return F.rms_norm(input, module.normalized_shape, None, module.eps)


class _ChannelsRule(LayerRule):
    """Rule of layers whose weight has one entry for each channel, the second dimension."""

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        module: Any = call.module
        if module.weight is None:
            return {}
        grad = call.output_grad.to(module.weight.dtype)
        if grad.dim() < self._fewest_dimensions(module):
            raise unbatched(call, "(batch, channels, ...)")
        forms: dict[str, Gradients] = {"bias": _channel_sums(grad)}
        if "weight" in call.wanted:
            forms["weight"] = _channel_sums(
                self._normalized(module, call.input.to(grad.dtype)) * grad
            )
        return forms

    def _fewest_dimensions(self, module: Any) -> int:
        return 2

    @abstractmethod
    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        """Return the normalised input, without weight and bias."""


def _channel_sums(grad: Tensor) -> Tensor:
    return grad.flatten(2).sum(2) if grad.dim() > 2 else grad.clone()


class GroupNormRule(_ChannelsRule):
    """Per-example gradients of ``GroupNorm``."""

    depends_on_state = False

    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        return F.group_norm(input, module.num_groups, None, None, module.eps)


class InstanceNormRule(_ChannelsRule):
    """Per-example gradients of ``InstanceNorm``, by its own or by running statistics."""

    def _fewest_dimensions(self, module: Any) -> int:
        kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        return next(3 + number for number, kind in enumerate(kinds) if isinstance(module, kind))

    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        if module.training or not module.track_running_stats:
            return F.instance_norm(input, eps=module.eps)
        return running_normalized(module, input)


class BatchNormRule(_ChannelsRule):
    """Per-example gradients of ``BatchNorm`` in evaluation; in training it mixes the examples."""

    def check(self, name: str, module: nn.Module) -> None:
        """Raise :class:`DNIError` where the statistics are those of the batch."""
        if module.training or getattr(module, "running_mean", None) is None:
            raise DNIError(
                f"{describe(name, module)} normalises by statistics of the batch, which mixes its "
                "examples: no gradient belongs to one example. Put it into evaluation (eval(), "
                "with running statistics), or use GroupNorm or LayerNorm instead"
            )

    def _normalized(self, module: Any, input: Tensor) -> Tensor:
        return running_normalized(module, input)


def running_normalized(module: Any, input: Tensor) -> Tensor:
    """Return an input normalised by the running statistics of a layer."""
    return F.batch_norm(input, module.running_mean, module.running_var, eps=module.eps)
