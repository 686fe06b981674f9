"""Test accuracy on MNIST and step time, beside backpropagation and beside BioTorch."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from tasks import mnist
from tasks.image_task import ImageTask
from tasks.task import Batch

from .peer_methods import import_biotorch, Method, methods, Training
from .report import markdown_table
from .timing import time_steps, Timing

EPOCHS, SEEDS, BATCH = 2, (1, 2, 3), 256
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "4 x [Linear 220, ReLU]": partial(mnist.perceptron, 4, 220, "none", "relu"),
    "4 x [Linear 200, LayerNorm, GELU]": partial(mnist.perceptron, 4, 200, "layer", "gelu"),
    "10 x [Linear 160, BatchNorm, ReLU]": partial(mnist.perceptron, 10, 160, "batch", "relu"),
}

_TIMED_BATCHES = 20
_NOT_INSTALLED = (
    "peers: BioTorch is not installed, so its rows are left out; "
    "pip install --no-deps -r requirements-peers.txt installs it"
)


def run(
    device: str,
    networks: Mapping[str, Callable[[], nn.Module]] = NETWORKS,
    seeds: Sequence[int] = SEEDS,
    epochs: int = EPOCHS,
    task: ImageTask | None = None,
    blocks: int = 30,
) -> tuple[str, list[dict[str, Any]]]:
    """Train each network with each method, from the same weights and on the same batches.

    Args:
        device: Where the networks are trained.
        networks: Functions that build them, by name.
        seeds: Each determines the initial weights and the order of the samples.
        epochs: Number of passes over the training set.
        task: The data; None takes MNIST. Its default number of steps is one epoch.
        blocks: Number of blocks of steps that are timed.

    Returns:
        A table and its figures: accuracies in percent, one for each seed, and step times.

    Raises:
        TaskError: MNIST cannot be read.
    """
    task = task or _mnist(device)
    bio_module = import_biotorch()
    if bio_module is None:
        print(_NOT_INSTALLED, file=sys.stderr)
    compared = methods(bio_module)
    figures = []
    for network, build in networks.items():
        accuracies, trainings = _train_all(compared, build, task, seeds, epochs, device)
        batches = [task.training_batch(seeds[-1], step) for step in range(_TIMED_BATCHES)]
        timings = _time(trainings, batches, blocks, device)
        for name, found in accuracies.items():
            figure = {"network": network, "method": name, "accuracies": found}
            figures.append({**figure, **timings[name]._asdict()})
    return _table(figures), figures


def _table(figures: Sequence[Mapping[str, Any]]) -> str:
    header = ["network", "method", "test accuracy %", "std", "step time / backpropagation's"]
    rows = []
    for figure in figures:
        accuracies = figure["accuracies"]
        std = f"{stdev(accuracies):.2f}" if len(accuracies) > 1 else "-"
        cells = [f"{mean(accuracies):.2f}", std, f"{figure['ratio']:.2f}"]
        rows.append([figure["network"], figure["method"], *cells])
    return markdown_table(header, rows)


def _mnist(device: str) -> ImageTask:
    args = mnist.parser().parse_args([f"--batch={BATCH}", f"--device={device}"])
    return mnist.MNISTTask(args, args.depth)


def _train_all(
    compared: Mapping[str, Method],
    build: Callable[[], nn.Module],
    task: ImageTask,
    seeds: Sequence[int],
    epochs: int,
    device: str,
) -> tuple[dict[str, list[float]], dict[str, Training]]:
    """Return the test accuracies of each method, and its network of the last seed."""
    accuracies: dict[str, list[float]] = {name: [] for name in compared}
    trainings: dict[str, Training] = {}
    for seed in seeds:
        for name, method in compared.items():
            trainings[name] = _train(method, build, task, seed, epochs, device)
            accuracies[name].append(_accuracy(trainings[name].model, task))
    return accuracies, trainings


def _train(
    method: Method,
    build: Callable[[], nn.Module],
    task: ImageTask,
    seed: int,
    epochs: int,
    device: str,
) -> Training:
    """Return a network after its training; the seed determines all random numbers."""
    torch.manual_seed(seed)
    training = method(build().to(device), task.context_size)
    training.model.train().to(device)
    for step in range(epochs * task.default_steps):
        training.step(task.training_batch(seed, step))
    return training


@torch.no_grad()
def _accuracy(model: nn.Module, task: ImageTask) -> float:
    """Return the share of the test images that are classified correctly, in percent."""
    model.eval()
    right = total = 0
    for batch in task.test_batches():
        right += int((model(batch.input).argmax(1) == batch.target).sum())
        total += len(batch.target)
    model.train()
    return 100 * right / total


def _time(
    trainings: Mapping[str, Training], batches: Sequence[Batch], blocks: int, device: str
) -> dict[str, Timing]:
    """Time further steps of trained networks in turn, with one thread."""
    steps = {name: _step_on_next(training, batches) for name, training in trainings.items()}
    # The CPU time of one thread is its step time, and other programs hardly change it.
    clock = time.process_time if device == "cpu" else time.perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return time_steps(steps, blocks, length=_TIMED_BATCHES // 2, clock=clock)
    finally:
        torch.set_num_threads(threads)


def _step_on_next(training: Training, batches: Sequence[Batch]) -> Callable[[], object]:
    """Return a function that takes a training step on the next of the batches, again and again."""
    endless = itertools.cycle(batches)
    return lambda: training.step(next(endless))
