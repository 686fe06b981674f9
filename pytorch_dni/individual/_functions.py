"""The public contexts: gradients, norms, inner products and projections."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TypeAlias

from torch import nn, Tensor

from .._checks import check_flag, check_whole
from ..errors import DNIError
from ._context import IndividualContext, Reduction
from ._directions import Directions
from ._projections import ProjectionFile, Projections
from ._quantities import (
    DotQuantity,
    FullQuantity,
    NormQuantity,
    ProjectionQuantity,
    total_norm,
    total_sum,
)
from ._results import IndividualValues, SummedValues
from ._rows import RowGradients

BatchDim: TypeAlias = int | Mapping[str, int]


class individual_gradients(IndividualContext[IndividualValues[Tensor | RowGradients]]):
    """Take the gradient of each example, in the user's one ``loss.backward()``.

    Args:
        net: The network, wrapped by :class:`DNI` or not. Run it, and call ``loss.backward()``,
            inside the context.
        out: A dict of buffers by parameter name, which later backward passes use again; it may be
            empty, and is filled up. A buffer with more rows than the batch has is used in part.
            None makes new tensors in each pass.
        sparse: Give the gradients of embeddings as :class:`RowGradients`: those of the rows that
            each example uses.
        reduction: ``"sum"`` where the loss is the sum of the examples' losses, ``"mean"`` where it
            is their mean. Each gradient is that of the example's own loss.
        grad: Whether ``grad`` of the parameters is computed as ever; False leaves it as it is, and
            saves the time.
        batch_dim: The dimension of examples in the tensors of layers, or a mapping from names of
            layers (``"*"`` for all others). Recurrent layers and attention know their own.

    Entering the context gives a mapping from qualified names of parameters to tensors
        ``(batch, *parameter shape)``, those of the last backward pass.

    Raises:
        DNIError: An argument is wrong, or a layer has no per-example gradients; the message says
            which, why and what to do.

    Example::

        with individual_gradients(net, reduction="mean") as gradients:
            criterion(net(x), y).backward()
        gradients["0.weight"].shape  # (batch, 64, 32)

    Source: Goodfellow 2015, arXiv 1510.01799.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        out: MutableMapping[str, Tensor] | None = None,
        sparse: bool = False,
        reduction: Reduction = "sum",
        grad: bool = True,
        batch_dim: BatchDim = 0,
    ) -> None:
        check_flag("sparse", sparse)
        if out is not None and not isinstance(out, MutableMapping):
            raise DNIError(f"out must be a dict of tensors, not {type(out).__name__}")
        quantity = FullQuantity(out, sparse)
        result = IndividualValues(quantity)
        super().__init__(net, quantity, result, reduction, grad, batch_dim)


class individual_gradient_norms(IndividualContext[SummedValues]):
    """Take the norm of each example's gradient, without making the gradients.

    Args:
        net: As in :func:`individual_gradients`.
        reduction: As there.
        grad: As there.
        batch_dim: As there.

    Entering the context gives a mapping from qualified names of parameters to tensors
        ``(batch,)``; its ``total`` is the norm over all parameters.

    Raises:
        DNIError: As in :func:`individual_gradients`.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        reduction: Reduction = "sum",
        grad: bool = True,
        batch_dim: BatchDim = 0,
    ) -> None:
        quantity = NormQuantity()
        result = SummedValues(quantity, total_norm)
        super().__init__(net, quantity, result, reduction, grad, batch_dim)


class individual_gradient_dots(IndividualContext[SummedValues]):
    """Take the inner products of all pairs of examples' gradients, without making the gradients.

    Args:
        net: As in :func:`individual_gradients`.
        reduction: As there.
        grad: As there.
        batch_dim: As there.

    Entering the context gives a mapping from qualified names of parameters to tensors
        ``(batch, batch)``; its ``total`` is their sum, the Gram matrix of whole gradients.

    Raises:
        DNIError: As in :func:`individual_gradients`.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        reduction: Reduction = "sum",
        grad: bool = True,
        batch_dim: BatchDim = 0,
    ) -> None:
        quantity = DotQuantity()
        result = SummedValues(quantity, total_sum)
        super().__init__(net, quantity, result, reduction, grad, batch_dim)


class individual_gradient_projections(IndividualContext[Projections]):
    """Project each example's gradient to ``dim`` numbers, without making the gradient.

    The projection is random, and fixed by ``seed`` and the names and shapes of the parameters. The
    inner product of two projections is that of the gradients, in the mean over seeds.

    Args:
        net: As in :func:`individual_gradients`.
        dim: Number of random directions.
        seed: Determines them.
        file: Where ``write()`` of the result writes projections, batch by batch.
        reduction: As in :func:`individual_gradients`.
        grad: As there.
        batch_dim: As there.

    Entering the context gives a mapping from qualified names of parameters to tensors
        ``(batch, dim)``; its ``total`` is their sum, the projection of the whole gradient.

    Raises:
        DNIError: As in :func:`individual_gradients`; or the file holds other projections.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        seed: int = 0,
        *,
        file: ProjectionFile | None = None,
        reduction: Reduction = "sum",
        grad: bool = True,
        batch_dim: BatchDim = 0,
    ) -> None:
        check_whole("dim", dim, 1)
        check_whole("seed", seed, 0)
        if file is not None and not isinstance(file, ProjectionFile):
            raise DNIError(f"file must be a ProjectionFile, not {type(file).__name__}")

        def open_file(parameters: Mapping[str, Tensor]) -> None:
            if file is not None:
                file.open(dim, seed, parameters)

        quantity = ProjectionQuantity(Directions(dim, seed), open_file)
        result = Projections(quantity, total_sum, file)
        super().__init__(net, quantity, result, reduction, grad, batch_dim)
