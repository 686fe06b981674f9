"""Rules of layers with a weight: linear, embedding and convolutional layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import describe, DNIError
from ._forms import FullGradients, GradientForm, OuterProducts, VectorProducts
from ._rows import EmbeddedRows
from ._rules import Gradients, LayerCall, LayerRule


def linear_forms(input: Tensor, grad: Tensor, shape: Sequence[int]) -> dict[str, GradientForm]:
    """Return the gradients of weight and bias of a linear map.

    Args:
        input: ``(batch, *positions, inputs)``.
        grad: Output gradients ``(batch, *positions, outputs)``.
        shape: Shape of the weight.
    """
    if input.dim() == 2:
        bias = FullGradients(grad)
        return {"weight": VectorProducts(bias, FullGradients(input), shape), "bias": bias}
    if input.dim() > 3:
        input, grad = input.flatten(1, -2), grad.flatten(1, -2)
    weight = OuterProducts(grad.mT[:, None], input[:, None], shape)
    return {"weight": weight, "bias": FullGradients(grad.sum(1))}


class LinearRule(LayerRule):
    """Per-example gradients of ``Linear``, with any number of positions for each example.

    Source: Goodfellow 2015, arXiv 1510.01799.
    """

    depends_on_state = False

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        weight: Any = call.module.weight
        input, grad = call.input, call.output_grad
        if grad.dim() == 1:
            raise unbatched(call, "(batch, ..., features)")
        if not input.dtype == grad.dtype == weight.dtype:
            input, grad = input.to(weight.dtype), grad.to(weight.dtype)
        return linear_forms(input, grad, weight.shape)


class EmbeddingRule(LayerRule):
    """Per-example gradients of ``Embedding``: each position adds to the row that it reads."""

    depends_on_state = False

    def check(self, name: str, module: nn.Module) -> None:
        """Raise :class:`DNIError` where gradients depend on the other examples."""
        if getattr(module, "scale_grad_by_freq", False):
            raise DNIError(
                f"{describe(name, module)} divides gradients by how often the batch uses a row "
                "(scale_grad_by_freq=True), which mixes its examples: set it to False"
            )

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        module: Any = call.module
        indices = call.input
        grads = call.output_grad.to(module.weight.dtype).reshape(*indices.shape, -1)
        if module.padding_idx is not None:
            grads = grads.masked_fill((indices == module.padding_idx)[..., None], 0)
        batch, width = len(indices), grads.shape[-1]
        positions = indices.reshape(batch, -1)
        rows = EmbeddedRows(grads.reshape(batch, -1, width), positions, module.weight.shape)
        return {"weight": rows}


class ConvolutionRule(LayerRule):
    """Per-example gradients of convolutions of one, two or three dimensions.

    The weight multiplies the patches of the input: output positions take the place of positions.
    """

    depends_on_state = False

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        module: Any = call.module
        grad, spatial = call.output_grad, len(module.kernel_size)
        if grad.dim() != spatial + 2:
            raise unbatched(call, "(batch, channels, ...)")
        grad = grad.to(module.weight.dtype).flatten(2)
        forms: dict[str, Gradients] = {"bias": grad.sum(2)}
        if "weight" in call.wanted:
            right = _patches(module, call.input.to(grad.dtype))
            left = grad.unflatten(1, (module.groups, -1))
            forms["weight"] = OuterProducts(left, right.mT, module.weight.shape)
        return forms


def _patches(module: Any, input: Tensor) -> Tensor:
    """Return the inputs of each output position ``(batch, groups, inputs, positions)``."""
    input = _padded(module, input)
    spatial = len(module.kernel_size)
    settings = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for number, (size, stride, dilation) in enumerate(settings):
        input = input.unfold(2 + number, dilation * (size - 1) + 1, stride)
        input = input[..., ::dilation]
    # (batch, channels, *positions, *kernel) to (batch, channels, *kernel, *positions)
    kernel = range(2 + spatial, 2 + 2 * spatial)
    input = input.permute(0, 1, *kernel, *range(2, 2 + spatial))
    return input.reshape(len(input), module.groups, -1, input.shape[2 + spatial :].numel())


def _padded(module: Any, input: Tensor) -> Tensor:
    if module.padding == "valid":
        return input
    sides: list[int] = []
    for number, (size, dilation) in enumerate(
        zip(module.kernel_size, module.dilation, strict=True)
    ):
        total = dilation * (size - 1)
        same = module.padding == "same"
        pair = (total // 2, total - total // 2) if same else (module.padding[number],) * 2
        sides = [*pair, *sides]  # F.pad begins with the last dimension
    if not any(sides):
        return input
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(input, sides, mode=mode)


def unbatched(call: LayerCall, shape: str) -> DNIError:
    """Return the error of an input that has no dimension of examples."""
    return DNIError(
        f"{describe(call.name, call.module)} got an input without a batch dimension, so that its "
        f"gradient has no examples: give it {shape}"
    )
