"""Finding activations in what modules return."""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor


def first_activation(output: object) -> Tensor | None:
    """The first floating-point tensor in a module's output, which is where the module is cut.

    Looks through tuples, lists, mappings and dataclasses, so that ``(sequence, state)`` of a
    recurrent module gives its sequence and a model-output record its first field.
    """
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    children: Sequence[object]
    if isinstance(output, Mapping):
        children = list(output.values())
    elif isinstance(output, (tuple, list)):
        children = output
    elif dataclasses.is_dataclass(output):
        children = [getattr(output, field.name) for field in dataclasses.fields(output)]
    else:
        return None
    for child in children:
        found = first_activation(child)
        if found is not None:
            return found
    return None
