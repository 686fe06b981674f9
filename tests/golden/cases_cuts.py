"""Train every network of the zoo, cut in space, in every mode."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_dni import (
    BasicSynthesizer,
    Conv2d_DNI,
    DNI,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)

from . import loops
from .results import of_wrapper, seed, STEPS
from .shared import ELSEWHERE, ZOO

ALL = [*ZOO]
FLOATS = [name for name in ZOO if ZOO[name].input().is_floating_point()]
FEW = ["mlp", "residual", "lstm"]
CONVOLUTIONS = ["residual", "cnn", "conv1d"]


def labels(x):
    return torch.randint(3, (len(x),))


def features(x):
    return torch.randn(len(x), 3)


def labels_at_positions(x):
    return torch.randint(3, x.shape)


def labels_of_maps(x):
    return torch.randint(3, (len(x), *x.shape[2:]))


class Mode(NamedTuple):
    """Describe one way to train: arguments of ``DNI``, networks, contexts and a loop.

    The unlock level is ``update`` where the options give none, and synthesizers that take a context
    are :class:`Linear_DNI` or :class:`Conv2d_DNI` where they give no others.
    ``eager`` asks for eager learning, at layers where it is possible; ``example`` passes the first
    input as ``example_input``; ``single`` asks for single precision instead of double.
    """

    options: dict[str, Any]
    nets: list[str] = ALL
    context: Any = None
    loop: Any = loops.plain
    eager: bool = False
    example: bool = False
    single: bool = False


def wrapped(name, mode):
    """Return a fresh wrapper around a network, its optimizer and the data of a run."""
    example = ZOO[name]
    seed(5)
    inputs = [example.input() for _ in range(STEPS)]
    if not mode.single:
        inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    contexts = [mode.context(x) if mode.context else None for x in inputs]
    seed(0)
    network = example.build().to(torch.float32 if mode.single else torch.float64)
    opt = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    options = {"unlock": "update", **mode.options}
    if "context_size" in options:
        options.setdefault("dni_network", Conv2d_DNI if name in CONVOLUTIONS else Linear_DNI)
    if mode.eager:
        options = {"eager": True, "layers": ELSEWHERE.get(name), **options}
    if mode.example:
        options["example_input"] = inputs[0]
    seed(3)
    return DNI(network, opt, **options), opt, loops.Run(inputs, contexts, example.loss)


def trained(name, mode):
    net, opt, run = wrapped(name, mode)
    return of_wrapper(mode.loop(net, opt, run))


def early(step):
    """Return a share of the true gradient that changes with the step."""
    return 1.0 if step < 7 else 0.5 * (step < 12)


def momentum(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.5)


def ahead(name, input, output):
    return BasicSynthesizer(output.shape[-1], 2, 9, input.shape[-1])


def narrow(name, module, output):
    return Linear_DNI(output.shape[-1], 7, output.shape[-1])


def is_linear(name, module):
    return isinstance(module, nn.Linear)


# Without ``recurrent=False`` a network that holds an LSTM or a GRU is cut in time.
SPACE = {"recurrent": False}
LOCAL = {"dni_network": LocalLoss_DNI, "context_size": 3, **SPACE}
CONTEXT = {"context_size": 3, **SPACE}
SPARSE = {"update_probability": 0.5, **SPACE}
FULL = {"unlock": "full"}
WITHOUT_LSTM = [n for n in ALL if n != "lstm"]  # Some processors run no LSTM in bfloat16.
VECTORS = ["mlp", "batchnorm_inplace", "dropout", "functional", "shared", "branches"]
SEQUENCES = ["lstm", "gru", "transformer"]
SOME = ["mlp", "lstm", "transformer"]
MAPS = ["residual", "cnn"]

SYNTHESIZERS = {
    "optimizer sgd": Mode({"grad_optim": "sgd", "grad_lr": 0.1, **SPACE}),
    "optimizer adamw": Mode({"grad_optim": "adamw", **SPACE}, FEW),
    "optimizer rmsprop": Mode({"grad_optim": "rmsprop", **SPACE}, FEW),
    "optimizer class": Mode({"grad_optim": torch.optim.Adagrad, **SPACE}, FEW),
    "optimizer callable": Mode({"grad_optim": momentum, "grad_lr": 0.1, **SPACE}, FEW),
    "three steps": Mode({"grad_steps": 3, **SPACE}),
    "three steps, local": Mode({"grad_steps": 3, **LOCAL}, FEW, labels),
    "hidden size": Mode({"hidden_size": 5, **SPACE}, FEW),
    "rnn": Mode({"dni_network": RNN_DNI, **SPACE}, VECTORS + SEQUENCES),
    "rnn, gru, two layers": Mode(
        {"dni_network": RNN_DNI, "dni_params": {"cell": "gru", "num_layers": 2}, **CONTEXT},
        SOME, labels,
    ),
    "rnn, three steps": Mode({"dni_network": RNN_DNI, "grad_steps": 3, **SPACE}, ["lstm"]),
    "sigmoid": Mode({"dni_network": Linear_Sigmoid_DNI, **SPACE}, [*SOME, "shared", "branches"]),
    "conv": Mode({"dni_network": Conv2d_DNI, **SPACE}, MAPS),
    "conv, context": Mode({"dni_network": Conv2d_DNI, **CONTEXT}, MAPS, labels),
    "basic": Mode({"dni_network": BasicSynthesizer, **SPACE}, SOME),
    "basic, context, two layers": Mode(
        {"dni_network": BasicSynthesizer, "dni_params": {"n_hidden": 2}, **CONTEXT},
        SOME, labels,
    ),
    "callable": Mode({"dni_network": narrow, **SPACE}, SOME),
    "linear, layer norm, two layers": Mode(
        {"dni_network": Linear_DNI, "dni_params": {"norm": "layer", "num_layers": 2}, **SPACE}, SOME
    ),
    "linear, no norm, no hidden layer": Mode(
        {"dni_network": Linear_DNI, "dni_params": {"norm": None, "num_layers": 0}, **SPACE}, SOME
    ),
}  # fmt: skip

PLACES = {
    "by type": Mode({"layers": nn.Linear}, ["mlp", "shared", "cnn", "transformer"]),
    "by predicate": Mode({"layers": is_linear, "skip_last_layer": False}, FEW),
    "last layer too": Mode({"skip_last_layer": False, **SPACE}, [*FEW, "branches", "shared"]),
    "by name": Mode({"layers": ["0", "[12]"]}, ["mlp"]),
    "by pattern": Mode({"layers": "**.self_attn"}, ["transformer"]),
    "three parts": Mode({"layers": 3}, ["mlp", "cnn", "lstm"]),
    "three parts, eager": Mode({"layers": 3, "eager": True}, ["mlp", "cnn", "lstm"]),
    "two parts": Mode({"layers": 2}),
    "two parts, example": Mode({"layers": 2}, FEW, example=True),
    "two parts, eager": Mode({"layers": 2, "eager": True}),
    "whole": Mode({"recursive": False}),
    "whole, context": Mode(
        {"recursive": False, "context_size": 3, "dni_network": Linear_DNI}, FEW, labels
    ),
}

UNLOCKS = {
    "full": Mode(FULL, FLOATS),
    "full, example": Mode(FULL, ["mlp", "residual"], example=True),
    "full, context": Mode({"context_size": 3, **FULL}, FLOATS, labels),
    "full, sparse": Mode({"update_probability": 0.5, **FULL}, FLOATS),
    "full, lambda": Mode({"bp_lambda": 0.5, **FULL}, ["mlp", "residual"]),
    "full, own synthesizers": Mode(
        {"forward_network": ahead, "dni_network": BasicSynthesizer, **FULL}, ["mlp", "functional"]
    ),
    "full, backward twice": Mode(FULL, FEW[:2], loop=loops.backward_twice),
    "full, copied": Mode(FULL, FEW[:2], loop=loops.copied),
    "full, local": Mode({**LOCAL, **FULL}, ["mlp", "cnn"], labels),
    "eager": Mode(SPACE, eager=True),
    "eager, example": Mode(SPACE, FEW, eager=True, example=True),
    "eager, context": Mode(CONTEXT, FEW, labels, eager=True),
    "eager, local": Mode(LOCAL, ALL, labels, eager=True),
    "eager, sparse": Mode(SPARSE, eager=True),
    "eager, local, sparse": Mode({**LOCAL, **SPARSE}, FEW, labels, eager=True),
    "eager, lambda of the step": Mode({"bp_lambda": early, **SPACE}, FEW, eager=True),
    "eager, three steps, sgd": Mode(
        {"grad_steps": 3, "grad_optim": "sgd", "grad_lr": 0.1, **SPACE}, FEW, eager=True
    ),
    "eager, whole": Mode({"recursive": False, "eager": True}, FEW),
}

MODES = {
    "default": Mode({}),
    "in space": Mode(SPACE, ["lstm", "gru"]),
    "example": Mode(SPACE, example=True),
    "context": Mode(CONTEXT, ALL, labels),
    "context, features": Mode(CONTEXT, FEW, features),
    "context, positions": Mode(CONTEXT, SEQUENCES, labels_at_positions),
    "context, maps": Mode(CONTEXT, MAPS, labels_of_maps),
    "local": Mode(LOCAL, ALL, labels),
    "local, positions": Mode(LOCAL, SEQUENCES, labels_at_positions),
    "local, maps": Mode({"dni_params": {"pool": None}, **LOCAL}, ["residual"], labels_of_maps),
    "local, hidden layer": Mode({"dni_params": {"num_layers": 1}, **LOCAL}, FEW, labels),
    "local, features": Mode(
        {"dni_params": {"loss": nn.functional.mse_loss}, **LOCAL}, FEW, features
    ),
    "lambda": Mode({"bp_lambda": 0.5, **SPACE}),
    "lambda 1": Mode({"bp_lambda": 1.0, **SPACE}, FEW),
    "lambda of the step": Mode({"bp_lambda": early, **SPACE}),
    "sparse": Mode(SPARSE),
    "sparse, local": Mode({**LOCAL, **SPARSE}, FEW, labels),
    "sparse, one step": Mode({"grad_steps": 1, **SPARSE}, FEW),
    **SYNTHESIZERS,
    **PLACES,
    **UNLOCKS,
}

LOOPS = {
    "zero_grad between": (loops.zeroed_between, ALL),
    "accumulated": (loops.accumulated, ALL),
    "two at once": (loops.two_at_once, FEW),
    "backward twice": (loops.backward_twice, FEW),
    "frozen and hooked": (loops.frozen_and_hooked, FEW),
    "one sum": (loops.one_sum, FEW),
    "clipped and skipped": (loops.clipped_and_skipped, FEW),
    "by grad": (loops.by_grad, FEW),
    "evaluated between": (loops.evaluated_between, FEW),
    "lambda set": (loops.lambda_set, FEW),
    "copied": (loops.copied, FEW),
    "pickled": (loops.pickled, FEW[:2]),
    "unwrapped": (loops.unwrapped, FEW),
}
for loop_name, (loop, nets) in LOOPS.items():
    MODES[f"loop: {loop_name}"] = Mode(SPACE, nets, loop=loop)
    MODES[f"loop: {loop_name}, eager"] = Mode(SPACE, FEW[:2], loop=loop, eager=True)

# On machines with other rounding these results are not compared: see test_golden.py.
SINGLE = {
    "loop: autocast": Mode(SPACE, WITHOUT_LSTM, loop=loops.autocast),
    "loop: autocast, eager": Mode(SPACE, FEW[:2], loop=loops.autocast, eager=True),
    "loop: double and back": Mode(SPACE, FEW, loop=loops.double_and_back),
    "default": MODES["default"],
    **{
        title: MODES[title]._replace(nets=[n for n in MODES[title].nets if n in FEW])
        for title in ("context", "local", "sparse", "rnn", "conv", "full", "eager", "two parts")
    },
}
MODES |= {
    f"{title}, single precision": mode._replace(single=True) for title, mode in SINGLE.items()
}

CASES = {
    f"cuts / {mode_name} / {name}": partial(trained, name, mode)
    for mode_name, mode in MODES.items()
    for name in mode.nets
}
