"""A synthesizer for feature maps."""

from __future__ import annotations

from typing import Any, ClassVar, TYPE_CHECKING

from torch import nn, Size, Tensor

from .._checks import check_choice, check_flag, check_whole
from ..errors import SynthesizerError
from ._init import init_zero_
from .base import DNI_Network, Hidden

if TYPE_CHECKING:
    from typing_extensions import Self


class Conv2d_DNI(DNI_Network):
    """Convolutions that keep the resolution of the map.

    Args:
        input_size: Channels of activation and context together.
        hidden_size: Channels of the hidden layers.
        output_size: Channels of the activation.
        num_layers: Hidden convolutions; 0 leaves one linear convolution.
        kernel_size: Side of the kernels, odd.
        norm: ``"batch"`` (statistics of the batch, the default), ``"layer"`` (statistics of the
            sample) or None, in the hidden layers.
        takes_error: Whether the input holds the error as well, joined after the context.

    Shape:
        ``(batch, input_size, height, width)`` to ``(batch, output_size, height, width)``. Maps of
        one dimension are treated as images of one row, maps of three with their slices stacked.
    """

    features_last: ClassVar[bool] = False
    feature_dim: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        kernel_size: int = 3,
        norm: str | None = "batch",
        takes_error: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size)
        self.takes_error = takes_error
        check_flag("takes_error", takes_error, SynthesizerError)
        check_whole("num_layers", num_layers, 0, SynthesizerError)
        check_whole("kernel_size", kernel_size, 1, SynthesizerError)
        if kernel_size % 2 == 0:
            raise SynthesizerError(f"kernel_size must be odd to keep the resolution: {kernel_size}")
        check_choice("norm", norm, ("batch", "layer", None), SynthesizerError)
        layers: list[nn.Module] = []
        size = input_size
        for _ in range(num_layers):
            layers.append(nn.Conv2d(size, hidden_size, kernel_size, padding="same"))
            if norm is not None:
                layers.append(
                    nn.BatchNorm2d(hidden_size, track_running_stats=False)
                    if norm == "batch"
                    else nn.GroupNorm(1, hidden_size)
                )
            layers.append(nn.ReLU())
            size = hidden_size
        layers.append(nn.Conv2d(size, output_size, kernel_size, padding="same"))
        init_zero_(layers[-1])
        self.layers = nn.Sequential(*layers)

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
        """Build a synthesizer; ``hidden_size=None`` takes half the channels, at least 16."""
        if hidden_size is None:
            hidden_size = max(16, shape[-1] // 2)
        return super().for_activation(
            shape, context_size, hidden_size, error_shape=error_shape, **params
        )

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Predict a map of the same resolution; has no hidden state."""
        maps = input.unsqueeze(2) if input.dim() == 3 else input
        maps = maps.flatten(2, 3) if maps.dim() == 5 else maps
        predicted: Tensor = self.layers(maps)
        return predicted.reshape(input.shape[0], self.output_size, *input.shape[2:]), None
