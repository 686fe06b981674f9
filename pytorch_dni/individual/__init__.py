"""Per-example gradients from one backward pass of a mini-batch, and what is computed from them.

A context replaces the ``forward`` of each layer by one that keeps the layer's input. When the
output gradient reaches the layer in the user's ``loss.backward()``, a rule computes the gradients
of the layer's parameters for each example from the two.
"""

from ._context import IndividualContext
from ._forms import FullGradients, GradientForm, OuterProducts
from ._functions import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradient_projections,
    individual_gradients,
)
from ._projections import ProjectionFile, Projections
from ._results import IndividualValues, SummedValues
from ._rows import RowGradients
from ._rules import LayerCall, LayerRule, register_rule, RuleHandle

__all__ = [
    "individual_gradients",
    "individual_gradient_norms",
    "individual_gradient_dots",
    "individual_gradient_projections",
    "register_rule",
    "RuleHandle",
    "LayerCall",
    "LayerRule",
    "GradientForm",
    "FullGradients",
    "OuterProducts",
    "IndividualContext",
    "IndividualValues",
    "SummedValues",
    "Projections",
    "ProjectionFile",
    "RowGradients",
]
