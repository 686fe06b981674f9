"""Checkpoints of a network's cuts: plain data and tensors, for ``weights_only=True``."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import torch

from ._plan import Part
from ._probe import Site
from ._tree import zeros
from .errors import CheckpointError
from .interfaces._learner import Learner
from .recurrent import _saved

if TYPE_CHECKING:
    from ._cuts import Cuts
    from ._recipe import Interface
    from .recurrent._windows import Windows


def save(cuts: Cuts, windows: Windows) -> dict[str, Any]:
    """Cuts, synthesizers and their training, as plain data and tensors."""
    return {
        "sites": [[site.name, site.source] for site in cuts.sites.values()],
        "placed": cuts.first_run is None,
        "plan": [[*part] for part in cuts.plan],
        "interfaces": {
            name: {"like": cuts.likes[name], "state": interface.state_dict()}
            for name, interface in cuts.interfaces.items()
        },
        "windows": _saved.save(windows),
        "copied": sorted(cuts.copied),
        "input": cuts.input_like,
        "seed": cuts.schedule.seed,
        "bp_lambda": None if callable(cuts.bp_lambda) else float(cuts.bp_lambda),
        "learner": cuts.learner.state_dict(),
    }


def load(cuts: Cuts, windows: Windows, state: dict[str, Any], learner: Learner) -> None:
    """Become what was saved, with interfaces built anew and trained by a fresh ``learner``.

    Raises:
        CheckpointError: The network has no such places, or synthesizers made by this
            wrapper's arguments don't take the saved state. Nothing has changed.
    """
    sites = {name: Site(name, source) for name, source in state["sites"]}
    device = next((p.device for p in cuts.network.parameters()), torch.device("cpu"))
    built: dict[str, Interface] = {}
    try:
        if state["input"] is not None:
            cuts.given.enter(cuts.network, (zeros(state["input"], device),), {})
        for name, saved in state["interfaces"].items():
            built[name] = cuts.build(sites[name], zeros(saved["like"], device))
            built[name].load_state_dict(saved["state"])
        plan = [Part(*part) for part in state["plan"]]
        states = _saved.rebuilt(windows, state["windows"], device)
        for name in state["learner"]["order"]:
            {**built, **states}[name].taught_by(learner)
        learner.load_state_dict(state["learner"])
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            "the checkpoint does not fit this wrapper: give DNI the network and the arguments "
            f"(layers, dni_network, sizes, grad_optim) that it was saved with. {error}"
        ) from error
    finally:
        cuts.given.forget()
    cuts.interfaces = built
    cuts.likes = {name: saved["like"] for name, saved in state["interfaces"].items()}
    cuts.input_like = state["input"]
    cuts.schedule.seed = state["seed"]
    cuts.copied = set(state["copied"])
    if state["bp_lambda"] is not None and not callable(cuts.bp_lambda):
        cuts.bp_lambda = state["bp_lambda"]
    cuts.learner = learner
    cuts.plan = plan
    _saved.become(windows, state["windows"], states, learner, device)
    if state["placed"]:
        cuts.install(sites.values())
