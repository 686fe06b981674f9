"""Programs that train a language model on windows of a text with several modes."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence

import torch

from pytorch_dni import FutureGradient

from . import files, options, plots, window_options
from .errors import TaskError
from .language_runs import add_text_folder, LanguageModel, LanguageRun, MODES, PennTreebank
from .tables import format_table
from .window_training import by_mode, milliseconds_per_update, train_in_turn

_RESULTS, _CURVES, _CHECKPOINT = "results.jsonl", "curves.png", "checkpoint.pt"
_UPDATES_PER_BLOCK = 20


def language_parser(task: str, description: str | None, *, hidden: int) -> options.Parser:
    """Return a parser with the options of both language models.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        hidden: Default of ``--hidden``.
    """
    parser = options.Parser(prog=f"python -m tasks.{task}", description=description)
    parser.set_defaults(task=task)
    add_text_folder(parser)
    parser.add_modes(MODES)
    window_options.add_window_options(
        parser,
        window=5,
        updates=2000,
        hidden=hidden,
        lr=2e-3,
        synthesizer_hidden=256,
        factor=FutureGradient().factor,
        bound=FutureGradient().bound,
    )
    parser.add_integer("--every", 500, "updates between evaluations")
    parser.add_device()
    parser.add_output_folder("results, curves and checkpoint")
    parser.add_integer(
        "--sample", None, "print N tokens drawn from the model in --out; do not train", metavar="N"
    )
    return parser


def run(
    parser: options.Parser,
    tokenize: Callable[[str], list[str]],
    separator: str,
    argv: Sequence[str] | None,
) -> int:
    """Run a language model as a program and return its exit status.

    Args:
        parser: Parser of its options.
        tokenize: Splits a text into tokens.
        separator: Text between two tokens when they are printed.
        argv: Command-line arguments; None takes those of the process.
    """

    def program() -> None:
        args = parser.parse_args(argv)
        if args.sample is not None:
            print(separator.join(_sample(args)))
        else:
            _train(args, tokenize)

    return options.run_program(parser, program)


def _train(args: argparse.Namespace, tokenize: Callable[[str], list[str]]) -> None:
    window_options.check_output_folder(args, _RESULTS, _CHECKPOINT)
    text = PennTreebank(args.data, tokenize)
    runs = [LanguageRun(mode, seed, text, args) for seed in args.seed for mode in args.mode]

    def evaluate_regularly(run: LanguageRun) -> None:
        if run.updates % args.every == 0:
            run.evaluate()

    train_in_turn(runs, args, _UPDATES_PER_BLOCK, evaluate_regularly)
    for run in runs:
        if not run.history or run.history[-1].updates != run.updates:
            run.evaluate()
    print(summary(runs))
    if args.out is not None:
        with files.reporting_write_errors(args.out):
            _save(args, runs, text)


def summary(runs: Sequence[LanguageRun]) -> str:
    """Return a table with a row for each mode: means over seeds."""
    rows = [["mode", "window", "bits/token", "std", "perplexity", "updates", "ms/update"]]
    for mode, own in by_mode(runs).items():
        bits = [run.history[-1].value for run in own]
        rows.append(
            [
                mode,
                str(own[0].window),
                f"{statistics.mean(bits):.4f}",
                f"{statistics.stdev(bits):.4f}" if len(bits) > 1 else "-",
                f"{2 ** statistics.mean(bits):.2f}",
                f"{statistics.mean(run.updates for run in own):g}",
                milliseconds_per_update(own),
            ]
        )
    return format_table(rows)


def _save(args: argparse.Namespace, runs: Sequence[LanguageRun], text: PennTreebank) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "mode": run.mode,
            "seed": run.seed,
            "updates": entry.updates,
            "seconds": entry.seconds,
            "bits": entry.value,
        }
        for run in runs
        for entry in run.history
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_atomically(args.out / _RESULTS, lines.encode())
    histories = [(run.mode, run.history) for run in runs]
    title = f"{args.task}, windows of {args.window}"
    image = plots.plot_histories(histories, "validation loss, bits per token", title)
    files.write_atomically(args.out / _CURVES, image)
    best = min(runs, key=lambda run: run.history[-1].value)
    checkpoint = {
        "task": args.task,
        "cell": args.cell,
        "hidden": args.hidden,
        "vocabulary": text.vocabulary,
        "network": best.network.state_dict(),
    }
    files.save_checkpoint(args.out / _CHECKPOINT, checkpoint)


def _sample(args: argparse.Namespace) -> list[str]:
    """Return ``--sample`` tokens, each drawn from the prediction of the model in ``--out``."""
    network, vocabulary = _load_model(args)
    random = torch.Generator().manual_seed(args.seed[0])
    token, state = torch.zeros(1, 1, dtype=torch.int64, device=args.device), None
    drawn = []
    with torch.no_grad():
        for _ in range(args.sample):
            output, state = network(token, state)
            probabilities = output[0, 0].softmax(0).cpu()
            token.fill_(int(torch.multinomial(probabilities, 1, generator=random)))
            drawn.append(vocabulary[int(token)])
    return drawn


def _load_model(args: argparse.Namespace) -> tuple[LanguageModel, list[str]]:
    """Return the model of the checkpoint in ``--out`` and its vocabulary.

    Raises:
        TaskError: There is no checkpoint, or it is not one of this task.
    """
    if args.out is None:
        raise TaskError("--sample needs --out, the folder with the checkpoint")
    path = args.out / _CHECKPOINT
    checkpoint = files.load_checkpoint(path, args.device, "sample from")
    try:
        vocabulary = checkpoint["vocabulary"]
        network = LanguageModel(len(vocabulary), checkpoint["cell"], checkpoint["hidden"])
        network.load_state_dict(checkpoint["network"])
        task = checkpoint["task"]
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise TaskError(f"{path} is not a checkpoint of a language model") from error
    if task != args.task:
        raise TaskError(f"the checkpoint in {args.out} is of {task}")
    return network.to(args.device).eval(), vocabulary
