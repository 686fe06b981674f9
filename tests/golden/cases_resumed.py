"""Training that goes on from a checkpoint, in a fresh wrapper."""

import io
from functools import partial

import torch

from . import cases_cuts, cases_windows
from .results import of_wrapper, STEPS

HALF = STEPS // 2
CUTS = ["default", "in space", "example", "context", "local", "sparse", "rnn", "three steps"]
CUTS += ["two parts", "full", "full, sparse", "eager", "eager, local"]
WINDOWS = ["default", "context", "factor, probe, bound", "ends", "returns", "traces"]
WINDOWS += ["auxiliary", "critic", "space and time"]


def loaded(old, old_opt, new, new_opt):
    """Save a wrapper and its optimizer into a file, and load it into fresh ones."""
    file = io.BytesIO()
    torch.save({"net": old.state_dict(), "opt": old_opt.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    new.load_state_dict(state["net"])
    new_opt.load_state_dict(state["opt"])


def cut(name, mode):
    net, opt, run = cases_cuts.wrapped(name, mode)
    mode.loop(net, opt, run.part(0, HALF))
    fresh, fresh_opt, _ = cases_cuts.wrapped(name, mode)
    loaded(net, opt, fresh, fresh_opt)
    return of_wrapper(mode.loop(fresh, fresh_opt, run.part(HALF, STEPS)))


def windows(name, mode):
    net, opt = cases_windows.begun(name, mode)
    state = cases_windows.go_on(name, mode, net, opt, None, range(HALF))
    state = cases_windows.detached(name, HALF, state)
    fresh, fresh_opt = cases_windows.begun(name, mode)
    loaded(net, opt, fresh, fresh_opt)
    cases_windows.go_on(name, mode, fresh, fresh_opt, state, range(HALF, STEPS))
    return of_wrapper(fresh)


CASES = {}
for title in CUTS:
    mode = cases_cuts.MODES[title]
    for name in (n for n in ("mlp", "residual", "lstm") if n in mode.nets):
        CASES[f"resumed / cuts / {title} / {name}"] = partial(cut, name, mode)
for title in WINDOWS:
    mode = cases_windows.MODES[title]
    for name in (n for n in ("lstm", "own") if n in mode.nets):
        CASES[f"resumed / windows / {title} / {name}"] = partial(windows, name, mode)
