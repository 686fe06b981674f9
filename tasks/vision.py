"""torchvision, also where its compiled operators do not fit the installed torch.

The wheel for an accelerator beside a CPU-only torch cannot load its operators, and then fails to
import for want of two of them. Data sets, transforms and models need neither: declared, though
without an implementation, they let the import pass. Where torchvision imports, nothing is done.
"""

import importlib
import sys
from types import ModuleType

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_MISSING = {name: f"{name}{_BOXES}" for name in ("nms", "qnms")}

#: Operators that had to be declared; empty where torchvision imports by itself.
declared: list[str] = []

_library: torch.library.Library | None = None  # declarations last as long as this object


def _import() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare()
    # What the failed import left behind would be taken for loaded.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")


def _declare() -> None:
    global _library
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _MISSING.items():
        if not hasattr(torch.ops.torchvision, name):
            _library.define(schema)
            declared.append(name)


torchvision = _import()
