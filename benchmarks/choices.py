"""What choices in the library are worth: MNIST with labels as context, one changed at a time."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from pytorch_dni import Linear_DNI
from tasks.mnist import MNISTTask
from tasks.modes import Recipe
from tasks.training import Comparison

from .measure import table

LR, EPOCHS, SEEDS = 3e-4, 3, (1, 2, 3)


class RawTarget_DNI(Linear_DNI):
    """Regresses to the true gradient as it is."""

    normalize_target = False


def momentum(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam as it comes."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


CHOICES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "cut at the Linear modules": {"layers": nn.Linear},
    "Adam's usual momentum": {"grad_optim": momentum},
    "targets not normalised": {"dni_network": RawTarget_DNI},
    "layer norm in the synthesizers": {
        "dni_network": Linear_DNI,
        "dni_params": {"norm": "layer"},
    },
    "no norm in the synthesizers": {"dni_network": Linear_DNI, "dni_params": {"norm": None}},
    "hidden_size=32": {"hidden_size": 32},
}


def run(device: str, steps: int | None = None) -> tuple[str, dict[str, Any]]:
    """The table, and its figures: test accuracy in percent, after ``steps`` or all epochs."""
    folder = os.environ.get("DNI_DATA")
    args = argparse.Namespace(
        data=Path(folder) if folder else None, download=False, device=torch.device(device),
        batch=256, epochs=EPOCHS, network="mlp", depth=3, hidden=256,
    )  # fmt: skip
    task = MNISTTask(args)
    recipes = [Recipe("bp", LR)]
    recipes += [Recipe("cdni", LR, name, options) for name, options in CHOICES.items()]
    comparison = Comparison(task, recipes, SEEDS, args.device)
    total = steps or task.total
    comparison.train(total, total, lambda: None)
    figures: dict[str, Any] = {}
    for row in comparison.history:
        name = row["synthesizer"] or "backpropagation"
        figures.setdefault(name, []).append(100 * (1 - row["test_error"]))
    rows = [[name, f"{mean(a):.2f}", f"{stdev(a):.2f}"] for name, a in figures.items()]
    return table(["cdni", "test accuracy %", "+-"], rows), figures
