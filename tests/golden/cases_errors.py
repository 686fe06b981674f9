"""Train networks whose synthesizers take the error of the output, or that of a local head."""

from functools import partial

import torch
from torch import nn

from pytorch_dni import Conv2d_DNI, DNI, Feedback_DNI, Linear_DNI, LocalError_DNI, RNN_DNI
from tests.support.wrapped import residual

from . import loops
from .cases_cuts import (
    ALL,
    early,
    features,
    labels,
    labels_at_positions,
    labels_of_maps,
    Mode,
    SPACE,
    trained,
)
from .cases_resumed import cut as resumed
from .results import of_wrapper, seed, STEPS

RECURRENT = ["lstm", "gru"]  # Both have one cut by default.
FEW = ["mlp", "residual", "transformer"]
BACKWARD = {"unlock": "backward", **SPACE}
SEVERAL = {"layers": ["embedding", "first", "second"], **BACKWARD}
EXACT = {"exact_every": 3, **BACKWARD}
GATED = {"dni_network": Feedback_DNI, "dni_params": {"gate": True}, **BACKWARD}
COARSE = {"dni_network": Feedback_DNI, "dni_params": {"max_parameters": 64}, **BACKWARD}
WITH_ERROR = {"dni_params": {"takes_error": True}, **BACKWARD}
LOCAL = {"dni_network": LocalError_DNI, "context_size": 3, **SPACE}


def rarer(step):
    """Return a period of exact steps that changes with the step."""
    return 2 if step < 6 else 5


def labelled(**params):
    """Return options of local errors with parameters of their class."""
    return {"dni_params": params, **LOCAL}


FEEDBACK = {
    "default": Mode(BACKWARD, ALL),
    "several cuts": Mode(SEVERAL, RECURRENT),
    "example": Mode(BACKWARD, FEW, example=True),
    "gated": Mode(GATED, ALL),
    "coarse": Mode(COARSE, ["residual", "cnn", "transformer"]),
    "two parts": Mode({**BACKWARD, "layers": 2}, ["mlp", "cnn", "transformer"]),
    "last layer too": Mode({"skip_last_layer": False, **BACKWARD}, [*FEW, "branches", "shared"]),
    "lambda": Mode({"bp_lambda": 0.5, **BACKWARD}, FEW),
    "lambda of the step": Mode({"bp_lambda": early, **BACKWARD}, FEW),
    "sparse": Mode({"update_probability": 0.5, **BACKWARD}, ALL),
    "three steps": Mode({"grad_steps": 3, **BACKWARD}, FEW),
    "three steps, gated": Mode({"grad_steps": 3, **GATED}, FEW),
    "optimizer sgd": Mode({"grad_optim": "sgd", "grad_lr": 0.1, **BACKWARD}, FEW),
    "linear with the error": Mode({"dni_network": Linear_DNI, **WITH_ERROR}, FEW),
    "rnn with the error": Mode({"dni_network": RNN_DNI, **WITH_ERROR}, ["mlp", "transformer"]),
    "conv with the error": Mode({"dni_network": Conv2d_DNI, **WITH_ERROR}, ["residual", "cnn"]),
    "linear with the error and labels": Mode(
        {"dni_network": Linear_DNI, "context_size": 3, **WITH_ERROR}, ["mlp"], labels
    ),
    "exact every": Mode(EXACT, ALL),
    "exact every, several cuts": Mode({**SEVERAL, **EXACT}, RECURRENT),
    "exact every, of the step": Mode({**BACKWARD, "exact_every": rarer}, FEW),
    "exact every, linear with labels": Mode(
        {**EXACT, "dni_network": Linear_DNI, "context_size": 3}, ["mlp"], labels
    ),
}
LOCAL_ERRORS = {
    "default": Mode(LOCAL, ALL, labels),
    "features": Mode(labelled(loss=nn.functional.mse_loss), FEW, features),
    "positions": Mode(LOCAL, ["lstm", "gru", "transformer"], labels_at_positions),
    "maps": Mode(labelled(pool=None), ["residual"], labels_of_maps),
    "gated": Mode(labelled(gate=True), FEW, labels),
    "hidden layer": Mode(labelled(num_layers=1), FEW, labels),
    "lambda of the step": Mode({"bp_lambda": early, **LOCAL}, FEW, labels),
    "sparse": Mode({"update_probability": 0.5, **LOCAL}, FEW, labels),
    "three steps": Mode({"grad_steps": 3, **LOCAL}, FEW, labels),
    "exact every": Mode({"exact_every": 3, **LOCAL}, FEW, labels),
    "full": Mode({"unlock": "full", **LOCAL}, ["mlp", "cnn"], labels),
    "eager": Mode(LOCAL, ALL, labels, eager=True),
    "eager, sparse": Mode({"update_probability": 0.5, **LOCAL}, FEW, labels, eager=True),
}
LOOPS = {
    "zero_grad between": loops.zeroed_between,
    "accumulated": loops.accumulated,
    "two at once": loops.two_at_once,
    "one sum": loops.one_sum,
    "backward twice": loops.backward_twice,
    "frozen and hooked": loops.frozen_and_hooked,
    "clipped and skipped": loops.clipped_and_skipped,
    "by grad": loops.by_grad,
    "evaluated between": loops.evaluated_between,
    "copied": loops.copied,
    "unwrapped": loops.unwrapped,
}
SINGLE = {
    "loop: autocast, single precision": loops.autocast,
    "loop: double and back, single precision": loops.double_and_back,
}
for title, loop in LOOPS.items():
    FEEDBACK[f"loop: {title}"] = Mode(BACKWARD, ["mlp", "residual"], loop=loop)
    FEEDBACK[f"loop: {title}, exact every"] = Mode(EXACT, ["mlp"], loop=loop)
for title, loop in SINGLE.items():
    FEEDBACK[title] = Mode(BACKWARD, ["mlp", "residual"], loop=loop, single=True)
    LOCAL_ERRORS[title] = Mode(LOCAL, ["mlp", "residual"], labels, loop, single=True)


def residual_blocks(options, *shape):
    """Train residual blocks; on sequences their matrices start at the identity."""
    seed(0)
    network = residual(4).double()
    opt = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    net = DNI(network, opt, layers=["1.0", "1.1", "1.2", "1.3"], **options)
    inputs = [torch.randn(*shape, 4, dtype=torch.float64) for _ in range(STEPS)]
    run = loops.Run(inputs, [None] * STEPS, lambda out: out.square().mean())
    return of_wrapper(loops.plain(net, opt, run))


CASES = {}
for kind, modes in (("feedback", FEEDBACK), ("local error", LOCAL_ERRORS)):
    for title, mode in modes.items():
        for name in mode.nets:
            CASES[f"{kind} / {title} / {name}"] = partial(trained, name, mode)
for title in ("default", "gated", "sparse", "exact every"):
    for name in ("mlp", "residual"):
        CASES[f"resumed / feedback / {title} / {name}"] = partial(resumed, name, FEEDBACK[title])
for title in ("default", "sparse", "eager"):
    for name in ("mlp", "residual"):
        CASES[f"resumed / local error / {title} / {name}"] = partial(
            resumed, name, LOCAL_ERRORS[title]
        )
for title, given in {"default": BACKWARD, "gated": GATED, "exact every": EXACT}.items():
    CASES[f"feedback / {title} / residual blocks"] = partial(residual_blocks, given, 5)
    CASES[f"feedback / {title} / residual sequences"] = partial(residual_blocks, given, 5, 3)
