"""Import of torchvision, even if its compiled operators do not fit the installed torch.

A torchvision built for an accelerator cannot load its operators next to a torch without one. Its
import then fails because two operators are missing. Data sets, transforms and models do not use
them, so this module declares the two without an implementation and imports torchvision again.
Where torchvision imports without help, this module does nothing else.
"""

import importlib
import sys
from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")

#: Names of the operators that were declared; empty where torchvision imports without help.
declared: list[str] = []

_library: torch.library.Library | None = None  # declarations exist as long as this object


def _import() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare_operators()
    # Modules that the failed import has left would be taken for complete ones.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    global _library
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            _library.define(name + _SIGNATURE)
            declared.append(name)


torchvision = _import()
