"""Audit of training on MNIST: cosine similarity to the exact gradient, by depth, over the steps.

At each audit, one step of the wrapped network is compared with plain backpropagation on the same
batch. The similarity is over all parameters of a part.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from pytorch_dni import Audit

from . import files, live_table, options, plots, resuming, threads
from .mnist import add_layer_options, add_network_options, LEARNING_RATE, MNISTTask
from .modes import Configuration, MODES
from .progress import Progress
from .tables import format_table
from .task import Batch, step_seed

FIGURE = "audit.png"
_MODES = {mode: description for mode, description in MODES.items() if mode != "bp"}

Rows = list[tuple[int, list[float]]]  # steps, and the cosines of the parts


def audit_training(
    task: MNISTTask,
    configuration: Configuration,
    network: nn.Module,
    steps: int,
    every: int,
    seed: int = 1,
    live: bool = False,
) -> Rows:
    """Train a network, and return the cosines of its parts at each audit.

    Args:
        task: What the network is trained on.
        configuration: How it is trained.
        network: The network.
        steps: Number of training steps.
        every: Steps from one audit to the next; the first one is after the first step.
        seed: Seed of the data.
        live: Whether a table of ``stats()`` is shown on a terminal.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=configuration.lr)
    model = configuration.wrap(network, optimizer, task)
    rows: Rows = []
    losses: list[Tensor] = []

    def live_rows() -> list[Sequence[str]]:
        return live_table.rows([live_table.Trained(configuration.label, losses[-1].item(), model)])

    with Progress(steps, rows=live_rows if live else None) as progress:
        progress.show(configuration.label)
        for step in range(steps):
            batch = task.training_batch(seed, step)
            torch.manual_seed(step_seed(seed, step))
            optimizer.zero_grad()
            loss = _loss(task, configuration, model, batch)
            loss.backward()
            optimizer.step()
            losses = [loss.detach()]
            if step % every == 0 or step == steps - 1:
                rows.append((step + 1, _cosines(_audit(task, configuration, model, batch))))
            progress.advance(1)
    return rows


def _loss(task: MNISTTask, configuration: Configuration, model: nn.Module, batch: Batch) -> Tensor:
    with configuration.context(batch):
        output = model(batch.input)
    return task.loss(output, batch.target)


def _audit(task: MNISTTask, configuration: Configuration, model: nn.Module, batch: Batch) -> Audit:
    audit: Audit = model.audit(lambda network: _loss(task, configuration, network, batch))  # type: ignore[operator]
    return audit


def _cosines(audit: Audit) -> list[float]:
    """Return the cosines of the parts; where a gradient is zero, the cosine is zero."""
    return [0.0 if part.cosine != part.cosine else part.cosine for part in audit.parts]


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.audit", description=__doc__)
    parser.add_modes(_MODES, ("feedback", "local-error", "dni", "cdni", "local"))
    parser.add_steps(None, "training steps of each network (default: one epoch)")
    parser.add_integer("--every", 26, "training steps between audits")
    parser.add_training(batch=256, samples="samples", lr=LEARNING_RATE, whose="the network")
    parser.add_grad_lr()
    parser.add_seed()
    add_network_options(parser)
    add_layer_options(parser)
    parser.add_device()
    parser.add_threads()
    parser.add_live()
    parser.add_output_folder(f"the picture, {FIGURE}")
    return parser


def _run(args: argparse.Namespace) -> None:
    resuming.check_lengths(args)
    if args.out is not None:
        files.check_unused(args.out, (FIGURE,), "give another --out")
    task = MNISTTask(args, args.depth, args.norm, args.activation)
    steps = args.steps or task.default_steps
    torch.manual_seed(step_seed(args.seed, -1))
    network = task.build_network().to(args.device)
    threads.use(args.threads, network, task.training_batch(args.seed, 0).input)
    cosines = {
        mode: audit_training(
            task,
            Configuration(mode, args.lr, None, {"grad_lr": args.grad_lr}),
            copy.deepcopy(network),
            steps,
            args.every,
            args.seed,
            args.live,
        )
        for mode in args.mode
    }
    depth = max(len(rows[0][1]) for rows in cosines.values())
    header = ["mode", "step", *[f"part {i + 1}" for i in range(depth)]]
    last = [[mode, str(rows[-1][0]), *_formatted(rows[-1][1])] for mode, rows in cosines.items()]
    print(format_table([header, *last]))
    if args.out is not None:
        with files.reporting_write_errors(args.out):
            args.out.mkdir(parents=True, exist_ok=True)
            files.write_atomically(args.out / FIGURE, plots.plot_cosines(cosines))


def _formatted(cosines: Sequence[float]) -> list[str]:
    return [f"{cosine:.2f}" for cosine in cosines]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    program = parser()
    args = program.parse_args(argv)
    return options.run_program(program, lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
