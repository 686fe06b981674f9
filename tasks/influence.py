"""Influence on MNIST: the training digits that helped or harmed a wrong test digit most.

Some training digits get a wrong label. A network is trained on them, and the gradient of each
digit's loss, at a few points of the training, is projected to a few hundred numbers. The inner
product of the projections of a training and a test digit says how much the loss of one fell when
the network learned the other (TracIn, Pruthi et al. 2020). Digits with a wrong label have large
projections: the share of them among the largest 5 % is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from pytorch_dni.individual import individual_gradient_projections, ProjectionFile

from . import files, mnist, options, threads
from .errors import TaskError
from .image_data import ImageSet
from .image_task import add_data_options, check_data_option
from .influence_picture import draw, Row
from .task import step_generator, step_seed

FIGURE, FIGURES, CHECKPOINT = "influence.png", "influence.json", "checkpoint.pt"
_CHANGEABLE = {"out", "resume", "device", "threads", "data", "download"}
_TOP = 0.05


class Digits(NamedTuple):
    """The digits of a run.

    Attributes:
        training: Training digits, some with wrong labels.
        relabelled: ``(count,)``, whether a training digit's label is wrong.
        test: Test digits.
    """

    training: ImageSet
    relabelled: Tensor
    test: ImageSet


def plant(training: ImageSet, test: ImageSet, args: argparse.Namespace) -> Digits:
    """Return the first digits of a random order; a share of the training digits is relabelled.

    Raises:
        TaskError: There are fewer digits than asked for.
    """
    chosen = []
    for option, digits in (("train", training), ("test", test)):
        count = getattr(args, f"{option}_samples")
        if count > len(digits.labels):
            raise TaskError(
                f"--{option}-samples {count} is more than the {len(digits.labels)} there are"
            )
        order = torch.randperm(len(digits.labels), generator=step_generator(args.seed, -2))
        chosen.append(ImageSet(*(tensor[order[:count]] for tensor in digits)))
    images, labels = chosen[0]
    random = step_generator(args.seed, -3)
    count = round(args.relabelled * len(labels))
    wrong = torch.zeros(len(labels), dtype=torch.bool)
    wrong[torch.randperm(len(labels), generator=random)[:count]] = True
    shift = torch.randint(1, mnist.CLASSES, (len(labels),), generator=random).to(labels.device)
    shifted = (labels + shift) % mnist.CLASSES
    labels = torch.where(wrong.to(labels.device), shifted, labels)
    return Digits(ImageSet(images, labels), wrong, chosen[1])


def train(network: nn.Module, digits: ImageSet, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a network, and return its state at the end of each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=args.lr)
    states = []
    for epoch in tqdm(range(args.epochs), desc="training", unit="epoch"):
        random = step_generator(args.seed, epoch)
        order = torch.randperm(len(digits.labels), generator=random)
        for chosen in order.split(args.batch):
            images, labels = (tensor[chosen] for tensor in digits)
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        states.append({name: value.clone() for name, value in network.state_dict().items()})
    return states


def project(
    network: nn.Module, digits: ImageSet, dim: int, seed: int, path: Path, batch: int = 250
) -> Tensor:
    """Return the projected gradients ``(count, dim)`` of digits; they are in a file afterwards.

    A file that was begun is continued.
    """
    count = len(digits.labels)
    file = ProjectionFile(path, count)
    with individual_gradient_projections(network, dim, seed, file=file, grad=False) as projections:
        done = projections.written
        with tqdm(total=count, initial=done, desc=path.stem, unit="digit") as bar:
            for first in range(done, count, batch):
                images, labels = (tensor[first : first + batch] for tensor in digits)
                F.cross_entropy(network(images), labels, reduction="sum").backward()
                projections.write()
                bar.update(len(labels))
    return torch.from_numpy(numpy.load(path))


def share_found(sizes: Tensor, relabelled: Tensor) -> float:
    """Return the share of relabelled digits that are among the largest 5 %."""
    largest = sizes.topk(max(1, round(_TOP * len(sizes)))).indices
    return float(relabelled[largest].sum() / relabelled.sum().clamp_min(1))


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.influence", description=__doc__)
    parser.add_integer("--train-samples", 10_000, "training digits", minimum=20, metavar="N")
    parser.add_integer("--test-samples", 2_000, "test digits", metavar="N")
    share = "share of training digits that get a wrong label"
    parser.add_number("--relabelled", 0.03, share, maximum=1)
    epochs = "passes over the training data; projections are taken after each"
    parser.add_integer("--epochs", 4, epochs)
    parser.add_training(batch=64, samples="digits", lr=1e-3, whose="the network")
    parser.add_integer("--dim", 256, "numbers to which a gradient is projected")
    parser.add_integer("--rows", 6, "wrong test digits in the picture")
    parser.add_seed()
    add_data_options(parser, "MNIST", "MNIST/")
    mnist.add_network_kind(parser)
    parser.set_defaults(hidden=128)
    mnist.add_layer_options(parser)
    parser.set_defaults(norm="none", depth=2)
    parser.add_device()
    parser.add_threads()
    parser.add_output_folder(f"the picture, {FIGURE}, the projections and a checkpoint")
    parser.add_resume()
    return parser


def _run(args: argparse.Namespace) -> None:
    check_data_option(args, "MNIST")
    if args.resume and args.out is None:
        raise TaskError("--resume needs --out, the folder of the run to continue")
    if args.out is not None and not args.resume:
        advice = "continue it with --resume, or give another --out"
        files.check_unused(args.out, (FIGURE, FIGURES, CHECKPOINT), advice)
    digits = plant(mnist.load_digits(args, train=True), mnist.load_digits(args, train=False), args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if args.out is None else args.out
        with files.reporting_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            figures, picture = influence(digits, folder, args)
            if args.out is not None:
                content = json.dumps(figures, indent=2) + "\n"
                files.write_atomically(folder / FIGURES, content.encode())
                files.write_atomically(folder / FIGURE, picture)
    print(
        f"{figures['wrong']} of {args.test_samples} test digits are classified wrongly\n"
        f"{figures['relabelled']} of {args.train_samples} training digits were relabelled; "
        f"{100 * figures['found']:.1f} % of them are among the 5 % with the largest projections "
        "(chance: 5 %)"
    )


def influence(
    digits: Digits, folder: Path, args: argparse.Namespace
) -> tuple[dict[str, Any], bytes]:
    """Train, project and compare; return figures and the picture."""
    torch.manual_seed(step_seed(args.seed, -1))
    network = _build(args).to(args.device)
    threads.use(args.threads, network, digits.training.images[: args.batch])
    states = _states(network, digits, folder / CHECKPOINT, args)
    network.eval()
    training: list[Tensor] = []
    test: list[Tensor] = []
    for number, state in enumerate(states, 1):
        network.load_state_dict(state)
        for name, own, found in (
            ("training", digits.training, training),
            ("test", digits.test, test),
        ):
            path = folder / f"{name}-{number}.npy"
            found.append(project(network, own, args.dim, args.seed, path))
    sizes = torch.stack([rows.square().sum(1) for rows in training]).sum(0)
    with torch.no_grad():
        predicted = torch.cat([network(x).argmax(1) for x in digits.test.images.split(1000)])
    wrong = (predicted != digits.test.labels).nonzero().flatten().cpu()
    shown = wrong[: args.rows].tolist()
    rows = [_row(digits, training, test, int(predicted[n]), n) for n in shown]
    figures = {
        "wrong": len(wrong),
        "relabelled": int(digits.relabelled.sum()),
        "found": round(share_found(sizes, digits.relabelled), 4),
    }
    return figures, draw(digits.training, digits.relabelled, rows)


def _build(args: argparse.Namespace) -> nn.Module:
    if args.network == "cnn":
        return mnist.convolutional(args.hidden)
    return mnist.perceptron(args.depth, args.hidden, args.norm, args.activation)


def _states(
    network: nn.Module, digits: Digits, path: Path, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the states of a trained network: those of the checkpoint, or new ones.

    Raises:
        TaskError: The checkpoint is of a run with other options.
    """
    given = {name: value for name, value in vars(args).items() if name not in _CHANGEABLE}
    if args.resume and path.exists():
        saved = files.load_checkpoint(path, args.device, "resume")
        if not isinstance(saved, dict) or saved.get("options") != given:
            raise TaskError(f"the run in {path.parent} has other options: give the same, or --out")
        states: list[dict[str, Any]] = saved["states"]
        return states
    states = train(network, digits.training, args)
    files.save_checkpoint(path, {"options": given, "states": states})
    return states


def _row(
    digits: Digits, training: Sequence[Tensor], test: Sequence[Tensor], predicted: int, number: int
) -> Row:
    """Return a row of the picture: a test digit, and the digits with the largest influence."""
    products = torch.stack([a @ b[number] for a, b in zip(training, test, strict=True)]).sum(0)
    return Row(
        digits.test.images[number],
        int(digits.test.labels[number]),
        predicted,
        products.topk(5).indices.tolist(),
        (-products).topk(5).indices.tolist(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    program = parser()
    args = program.parse_args(argv)
    advice = "interrupted; with --out, --resume continues after the last batch that was projected"
    return options.run_program(program, lambda: _run(args), advice)


if __name__ == "__main__":
    sys.exit(main())
