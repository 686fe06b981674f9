"""The rule of ``MultiheadAttention``, whose projections are no modules that are called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import describe, DNIError
from ._layers import linear_forms
from ._rows import RowBlocks
from ._rules import Gradients, LayerCall
from ._tracking import OwnForward, Taps


class _Projection:
    """Computes the gradients of a projection: some rows of a weight and of a bias.

    Args:
        weight: Name of the weight.
        bias: Name of the bias.
        first: First row of the weight; None takes all rows.
        bias_first: First entry of the bias; None takes all.
    """

    def __init__(self, weight: str, bias: str, first: int | None, bias_first: int | None) -> None:
        self._weight, self._bias = weight, bias
        self._first, self._bias_first = first, bias_first

    def __call__(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        owner: Any = call.module
        for part in self._weight.split(".")[:-1]:
            owner = getattr(owner, part)
        weight: Tensor = getattr(owner, self._weight.split(".")[-1])
        grad = call.output_grad.to(weight.dtype)
        shape = (grad.shape[-1], weight.shape[1])
        forms: dict[str, Gradients] = {}
        found = linear_forms(call.input.to(weight.dtype), grad, shape)
        firsts = {"weight": self._first, "bias": self._bias_first}
        shapes = {"weight": weight.shape, "bias": (3 * weight.shape[1],)}
        for kind, name in (("weight", self._weight), ("bias", self._bias)):
            first = firsts[kind]
            if name in call.wanted:
                whole = getattr(call.module, name).shape if first is not None else shapes[kind]
                forms[name] = (
                    found[kind] if first is None else RowBlocks({first: found[kind]}, whole)
                )
        return forms


class AttentionRule(OwnForward):
    """Per-example gradients of ``MultiheadAttention``.

    The layer is run as ``torch.nn.functional.multi_head_attention_forward`` does, operator by
    operator, since that function calls no module for its projections.
    """

    def parameters(self, module: nn.Module) -> Mapping[str, Tensor]:
        """Return the parameters whose gradients the rule computes, by name."""
        return dict(module.named_parameters(remove_duplicate=False))

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return nothing: each projection computes its own."""
        return {}

    def run(self, taps: Taps, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the layer; each projection is given to ``taps``."""
        return _run(taps, module, *args, **kwargs)


def fits(module: nn.MultiheadAttention) -> bool:
    """Return whether a layer is run by :class:`AttentionRule`: it adds nothing to its keys."""
    return module.bias_k is None and not module.add_zero_attn


def _run(
    taps: Taps,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    _check_call(module, query, attn_mask, is_causal)
    query, key, value = _length_first(module, query, key, value)
    # The kernel needs no mask for attention to earlier positions alone.
    is_causal = is_causal and key_padding_mask is None
    mask, padding = _masks(query, key_padding_mask, attn_mask, is_causal and not need_weights)
    q, k, v = _projected(taps, module, query, key, value)
    heads, (length, batch, width) = module.num_heads, query.shape
    q, k, v = (t.view(len(t), batch * heads, width // heads).transpose(0, 1) for t in (q, k, v))
    if padding is not None:
        wide = padding.view(batch, 1, 1, -1).expand(-1, heads, -1, -1)
        wide = wide.reshape(batch * heads, 1, -1)
        mask = wide if mask is None else mask + wide
    dropout = module.dropout if module.training else 0.0
    weights = None
    if need_weights:
        attended, weights = _weighted(q, k, v, mask, dropout)
        attended = attended.transpose(0, 1).reshape(length * batch, width)
    else:
        attended = _fused(q, k, v, mask, dropout, is_causal, (batch, heads))
    output = _projected_out(taps, module, attended, (length, batch))
    if weights is not None:
        weights = weights.view(batch, heads, length, -1)
        weights = weights.mean(1) if average_attn_weights else weights
    return output.transpose(0, 1) if module.batch_first else output, weights


def _masks(
    query: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    causal_alone: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return what is added to the scores: for all examples, and for the keys of each."""
    padding = None if key_padding_mask is None else _additive(key_padding_mask, query.dtype)
    if attn_mask is None or causal_alone:
        return None, padding
    mask = _additive(attn_mask, query.dtype)
    return mask.unsqueeze(0) if mask.dim() == 2 else mask, padding


def _length_first(
    module: Any, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs ``(length, batch, width)``; those that are one tensor stay one."""
    if not module.batch_first:
        return query, key, value
    same_key, same_value = key is query, value is key
    query = query.transpose(0, 1)
    key = query if same_key else key.transpose(0, 1)
    return query, key, key if same_value else value.transpose(0, 1)


def _check_call(module: Any, query: Tensor, mask: Tensor | None, is_causal: bool) -> None:
    reason = None
    if query.is_nested or query.dim() != 3:
        reason = "an input without a batch dimension, or a nested one: give it three dimensions"

    if is_causal and mask is None:
        reason = "is_causal without attn_mask: give both"
    if reason is not None:
        raise DNIError(f"{describe('', module)} got {reason}")


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask that is added to scores, of one that may be true at what is left out."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def _projected(
    taps: Taps, module: Any, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values ``(length, batch, width)``."""
    width, bias = query.shape[2], module.in_proj_bias
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    projected = []
    if module.in_proj_weight is None:
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        for number, (name, input) in enumerate(zip(names, (query, key, value), strict=True)):
            output = F.linear(input, getattr(module, name), biases[number])
            compute = _Projection(name, "in_proj_bias", None, number * width)
            projected.append(taps.attach(output, input, compute, 1))
        return projected[0], projected[1], projected[2]
    if key is value and key is query:
        groups = [(query, 3)]
    else:
        groups = [(query, 1), (key, 2)] if key is value else [(query, 1), (key, 1), (value, 1)]
    first = 0
    for input, count in groups:
        rows = slice(first * width, (first + count) * width)
        part = None if bias is None else bias[rows]
        weight = module.in_proj_weight if count == 3 else module.in_proj_weight[rows]
        compute = _Projection("in_proj_weight", "in_proj_bias", rows.start, rows.start)
        output = taps.attach(F.linear(input, weight, part), input, compute, 1)
        output = output.unflatten(-1, (count, width)).unsqueeze(0).transpose(0, -2)
        projected += [*output.squeeze(-2).contiguous()]
        first += count
    return projected[0], projected[1], projected[2]


def _weighted(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    q = q * math.sqrt(1.0 / float(q.shape[2]))
    scores = torch.bmm(q, k.mT) if mask is None else torch.baddbmm(mask, q, k.mT)
    weights = F.softmax(scores, -1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return torch.bmm(weights, v), weights


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: float,
    is_causal: bool,
    sizes: tuple[int, int],
) -> Tensor:
    """Return what is attended to ``(length * batch, width)``."""
    if mask is not None:
        single = mask.shape[0] == 1
        mask = mask.unsqueeze(0) if single else mask.view(*sizes, -1, mask.shape[-1])
    q, k, v = (t.view(*sizes, *t.shape[1:]) for t in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
    batch, heads, length, width = attended.shape
    return attended.permute(2, 0, 1, 3).contiguous().view(length * batch, heads * width)


def _projected_out(taps: Taps, module: Any, attended: Tensor, sizes: tuple[int, int]) -> Tensor:
    """Return the output ``(length, batch, width)``."""
    projection = module.out_proj
    compute = _Projection("out_proj.weight", "out_proj.bias", None, None)
    output = F.linear(attended, projection.weight, projection.bias).view(*sizes, -1)
    return taps.attach(output, attended.view(*sizes, -1), compute, 1)
