"""Test accuracy on MNIST with labels as context, when one setting of DNI is changed at a time."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from pytorch_dni import Linear_DNI
from tasks import mnist
from tasks.comparison import Comparison
from tasks.modes import Configuration

from .report import markdown_table

LR, EPOCHS, SEEDS = 3e-4, 3, (1, 2, 3)


class RawTarget_DNI(Linear_DNI):
    """A synthesizer that regresses to the true gradient without normalisation."""

    normalize_target = False


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return Adam with the default momentum of PyTorch."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cut at the Linear modules": {"layers": nn.Linear},
    "Adam's usual momentum": {"grad_optim": adam},
    "targets not normalised": {"dni_network": RawTarget_DNI},
    "layer norm in the synthesizers": {
        "dni_network": Linear_DNI,
        "dni_params": {"norm": "layer"},
    },
    "no norm in the synthesizers": {"dni_network": Linear_DNI, "dni_params": {"norm": None}},
    "hidden_size=32": {"hidden_size": 32},
}


def run(device: str, steps: int | None = None) -> tuple[str, dict[str, Any]]:
    """Train with each setting, for ``steps`` or all epochs.

    Returns:
        A table and its figures: test accuracies in percent, one for each seed.
    """
    argv = ["--batch=256", f"--epochs={EPOCHS}", "--network=mlp", "--depth=3", "--hidden=256"]
    args = mnist.parser().parse_args([*argv, f"--device={device}"])
    task = mnist.MNISTTask(args, args.depth)
    configurations = [Configuration("bp", LR)]
    for name, arguments in CHOICES.items():
        configurations.append(Configuration("cdni", LR, name, arguments))
    comparison = Comparison(task, configurations, SEEDS, args.device)
    total = steps or task.default_steps
    comparison.train(total, total, lambda: None)
    figures: dict[str, Any] = {}
    for row in comparison.history:
        name = row["synthesizer"] or "backpropagation"
        figures.setdefault(name, []).append(100 * (1 - row["test_error"]))
    rows = [[name, f"{mean(a):.2f}", f"{stdev(a):.2f}"] for name, a in figures.items()]
    return markdown_table(["cdni", "test accuracy %", "std"], rows), figures
