"""Cuts: what stands at the cuts of a wrapped network."""

from ._compilation import CompiledParts
from ._context_fit import ContextFit
from ._copies import InPlaceWatch, TriggerCopies
from ._errors import PassErrors
from ._exact_every import ExactEveryCuts
from ._factory import ForwardSpec, Interface, SynthesizerFactory, SynthesizerSpec
from ._hooks import ModuleHook
from ._inputs import ForwardInputs
from ._interface_set import InterfaceSet
from ._methods import CutMethod, FunctionCuts, HookCuts
from ._policy import BPLambda, ExactEvery, UpdatePolicy
from ._register import Cuts
from ._schedule import Schedule

__all__ = [
    "BPLambda",
    "CompiledParts",
    "ContextFit",
    "CutMethod",
    "Cuts",
    "ExactEvery",
    "ExactEveryCuts",
    "ForwardInputs",
    "ForwardSpec",
    "FunctionCuts",
    "HookCuts",
    "InPlaceWatch",
    "Interface",
    "InterfaceSet",
    "ModuleHook",
    "PassErrors",
    "Schedule",
    "SynthesizerFactory",
    "SynthesizerSpec",
    "TriggerCopies",
    "UpdatePolicy",
]
