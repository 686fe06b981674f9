"""Interrupt training by a checkpoint, a copy, a move or a forward pass that raises."""

import copy
import io
from functools import partial

import torch

from . import cases_cuts, cases_windows
from .results import of_wrapper, STEPS

HALF = STEPS // 2


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


def windows(how, name, mode):
    """Train on half of the windows, apply ``how`` and go on with the wrapper that it returns."""
    net, opt = cases_windows.begun(name, mode)
    state = cases_windows.go_on(name, mode, net, opt, None, range(HALF))
    state = cases_windows.detached(name, HALF, state)
    net, opt = how(name, mode, net, opt)
    cases_windows.go_on(name, mode, net, opt, state, range(HALF, STEPS))
    return of_wrapper(net)


def resumed(name, mode, net, opt):
    fresh, fresh_opt = cases_windows.begun(name, mode)
    loaded(net, opt, fresh, fresh_opt)
    return fresh, fresh_opt


def copied(name, mode, net, opt):
    net = copy.deepcopy(net)
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


def moved(name, mode, net, opt):
    return net.float().double(), opt


def broken_off(name, mode):
    """Train on windows; before every third one a forward pass raises."""
    net, opt = cases_windows.begun(name, mode)
    x = cases_windows.data(windows=1)[0][0]
    state = None
    for i in range(STEPS):
        if i % 3 == 2:
            try:
                net(x[..., :2], state if i % 2 else None)
            except RuntimeError:
                pass
            else:
                raise AssertionError("two of three features were taken")
        state = cases_windows.go_on(name, mode, net, opt, state, range(i, i + 1))
    return of_wrapper(net)


CUTS = ["default", "in space", "example", "context", "local", "sparse", "rnn", "three steps"]
CUTS += ["two parts", "full", "full, sparse", "eager", "eager, local"]
WINDOWS = ["default", "context", "factor, probe, bound", "ends", "returns", "traces"]
WINDOWS += ["auxiliary", "critic", "space and time"]
OTHERS = ["factor, probe, bound", "returns", "traces", "auxiliary", "critic"]

CASES = {}
for title in CUTS:
    mode = cases_cuts.MODES[title]
    for name in (n for n in ("mlp", "residual", "lstm") if n in mode.nets):
        CASES[f"resumed / cuts / {title} / {name}"] = partial(cut, name, mode)
for title in WINDOWS:
    mode = cases_windows.MODES[title]
    for name in (n for n in ("lstm", "own") if n in mode.nets):
        CASES[f"resumed / windows / {title} / {name}"] = partial(windows, resumed, name, mode)
for title in OTHERS:
    mode, name = cases_windows.MODES[title], "gru cell"
    CASES[f"copied / windows / {title} / {name}"] = partial(windows, copied, name, mode)
    CASES[f"moved / windows / {title} / {name}"] = partial(windows, moved, name, mode)
    CASES[f"broken off / windows / {title} / {name}"] = partial(broken_off, name, mode)
