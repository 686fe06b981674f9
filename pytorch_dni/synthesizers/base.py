"""The base class of synthesizers."""

from __future__ import annotations

from typing import Any, ClassVar, TYPE_CHECKING

import torch
from torch import nn, Size, Tensor

from .._checks import check_whole
from .._gradients import parameter_grads, ParameterGrads
from ..errors import SynthesizerError
from ._mlp import MLP

if TYPE_CHECKING:
    from typing_extensions import Self

Hidden = Any  # a tensor, any tree of tensors, or None


class DNI_Network(nn.Module):
    """Base class of synthesizers: predicts the gradient of an activation from the activation.

    A user's synthesizer derives from this class, takes the sizes, and defines :meth:`forward`.
    The prediction is regressed (mean squared error) to the true gradient divided by that
    gradient's running root mean square, and is multiplied back before use. So the synthesizer
    works in units of about one, however small the gradients are.

    Args:
        input_size: Features, or channels, of the input: those of activation and context together.
        hidden_size: Width of the hidden layers.
        output_size: Features, or channels, of the activation, whose gradient is predicted.

    Source: Jaderberg et al. 2017, section 2.1, where this is the model ``M``.
    """

    #: What the synthesizer predicts. ``"gradient"``: ``forward`` predicts the gradient. ``"loss"``:
    #: ``loss`` returns a scalar whose gradient with respect to the activation is the prediction.
    #: ``"return"``: ``forward`` predicts the future loss from a state, and the gradient of that
    #: loss is the prediction. ``"feedback"``: ``forward(input, hidden, error)`` predicts the
    #: gradient from activation and error, which are given separately, features last.
    predicts: ClassVar[str] = "gradient"
    #: Whether the error (the gradient of the loss at the output or at the last cut, divided by its
    #: running root mean square) is joined to the input, after the context.
    takes_error: bool = False
    #: Whether inputs have their features in the last dimension. Otherwise they have the layout of
    #: the activation: features last for (batch, features) and sequences, channels in dimension 1
    #: for images.
    features_last: ClassVar[bool] = False
    #: Feature dimension of triggers, where the interface is not given one.
    feature_dim: ClassVar[int] = -1
    #: Whether targets are divided by their running root mean square.
    normalize_target: ClassVar[bool] = True
    #: Learning rate where ``grad_lr`` is not given and ``grad_optim`` is ``"adam"``. It is well
    #: above a network's, since the synthesizer follows a target that moves with the network.
    default_lr: ClassVar[float] = 1e-2
    #: Learning rate over the network's present one, where ``grad_lr`` is not given and ``DNI`` was
    #: given the network's optimizer, one of Adam's kind; None takes ``default_lr``.
    lr_ratio: ClassVar[float | None] = None

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        for name, size in sizes.items():
            check_whole(f"{type(self).__name__}: {name}", size, 1, SynthesizerError)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = output_size

    @classmethod
    def for_activation(
        cls,
        shape: Size,
        context_size: int | None,
        hidden_size: int | None,
        *,
        error_shape: Size | None = None,
        **params: Any,
    ) -> Self:
        """Build a synthesizer for activations of a shape.

        Args:
            shape: Shape of the activation, with its features moved to the last dimension.
            context_size: Width of the context; None for no context.
            hidden_size: Width of the hidden layers; None takes a quarter of the features, at
                least 32.
            error_shape: Shape of the error, features last; None where there is none.
            params: Further arguments of the class.

        Raises:
            SynthesizerError: The class takes the error, and there is none.
        """
        features = shape[-1]
        hidden = max(32, features // 4) if hidden_size is None else hidden_size
        size = features + (context_size or 0)
        if params.get("takes_error", cls.takes_error):
            if error_shape is None:
                raise SynthesizerError(
                    f"{cls.__name__} takes the error at the network's output or at its last cut, "
                    "but there is none for this cut: take unlock='backward' and more than one "
                    "cut, or takes_error=False"
                )
            size += error_shape[-1]
        return cls(size, hidden, features, **params)

    def trained(self) -> list[tuple[nn.Module, float]]:
        """Return the modules that learn, each with its default learning rate."""
        return [(self, self.default_lr)]

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Predict the gradient, in units of its running root mean square.

        Args:
            input: The activation with the context joined along its features: shape
                ``(*, input_size)`` or ``(batch, input_size, *)``, as ``features_last`` says.
            hidden: The state that the previous call returned, detached; None in the first call.

        Returns:
            The prediction, of the activation's shape, and the next ``hidden``.
        """
        raise TypeError(f"{type(self).__name__} does not define forward(input, hidden)")

    def as_mlp(self) -> MLP | None:
        """Return an MLP that computes all of ``forward`` without autograd, if there is one."""
        return None

    def loss_gradient(
        self, activation: Tensor, target: Tensor, gain: Tensor
    ) -> tuple[Tensor, ParameterGrads]:
        """Compute the gradients of :meth:`loss` by the activation and by the parameters.

        Args:
            activation: Features last: ``(batch, *positions, features)``.
            target: The context, as in :meth:`loss`.
            gain: Factor of the activation's gradient; those of parameters are without it.

        Returns:
            The activation's gradient, and those of parameters, which are not written to ``grad``.
        """
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with torch.enable_grad():
            leaf = activation.detach().requires_grad_()
            loss = self.loss(leaf, target)
        found = torch.autograd.grad(loss, [leaf, *parameters], allow_unused=True)
        gradient = torch.zeros_like(activation) if found[0] is None else found[0] * gain
        return gradient, parameter_grads(parameters, found[1:])

    def loss(self, activation: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar that a synthesizer of ``predicts = "loss"`` minimises.

        Args:
            activation: Features last: ``(batch, *positions, features)``.
            target: The context: labels ``(*leading)`` or features
                ``(*leading, context_size)``.
        """
        raise TypeError(f"{type(self).__name__} does not define loss(activation, target)")
