"""The digits for which synthetic gradients are best and worst, by their cosine to the true ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .plots import new_figure, to_png
from .task import Task
from .training_run import TrainingRun

FIGURE = "examples.png"
_SHOWN = 10


class Judged(NamedTuple):
    """Digits of a batch and how well their gradients are predicted.

    Attributes:
        images: ``(batch, 1, height, width)``.
        labels: ``(batch,)``.
        cosines: ``(batch,)``, the mean over interfaces.
    """

    images: Tensor
    labels: Tensor
    cosines: Tensor


def judge(run: TrainingRun, task: Task, step: int) -> Judged:
    """Return the cosines of a batch's digits, by a copy of a trained network.

    Args:
        run: The training of the network.
        task: What it was trained on.
        step: Number of the training step whose batch is taken.
    """
    model = copy.deepcopy(run.model).train()
    model.measure_examples()
    batch = task.training_batch(run.seed, step)
    with run.configuration.context(batch):
        output = model(batch.input)
    task.loss(output, batch.target).backward()
    found = [stats.example_cosines for stats in model.stats().values()]
    cosines = torch.stack([cosine for cosine in found if cosine is not None]).mean(0)
    return Judged(batch.input.cpu(), batch.target.cpu(), cosines.cpu())


def draw(judged: Mapping[str, Judged]) -> bytes:
    """Draw the best and the worst digits as PNG.

    Args:
        judged: Digits by the label of the mode.
    """
    figure = new_figure(_SHOWN, 2.5 * len(judged))
    panels = figure.subplots(2 * len(judged), _SHOWN, squeeze=False)
    rows = [
        (label, name, digits, order)
        for label, digits in judged.items()
        for name, order in _orders(digits.cosines)
    ]
    for line, (label, name, digits, order) in zip(panels, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, number in zip(line, order, strict=False):
            axes.imshow(digits.images[number, 0].numpy(), cmap="gray_r")
            title = f"{int(digits.labels[number])}: {digits.cosines[number]:.2f}"
            axes.set_title(title, fontsize=8)
        line[0].text(-8, 14, f"{label}, {name}", rotation=90, va="center", fontsize=8)
    figure.suptitle("label: cosine of synthetic to true gradient", fontsize=9)
    return to_png(figure)


def _orders(cosines: Tensor) -> Sequence[tuple[str, list[int]]]:
    count = min(_SHOWN, len(cosines))
    best, worst = (cosines.topk(count, largest=way).indices.tolist() for way in (True, False))
    return [("best", best), ("worst", worst)]
