"""Language models on windows of a text: what the character and the word model share."""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from pytorch_dni import DNIError, FutureGradient

from . import options, record, window_options
from .language_runs import LanguageModel, MODES, Run, Text
from .options import TaskError

_ROWS, _CURVES, _CHECKPOINT = "results.jsonl", "curves.png", "checkpoint.pt"
_TURN = 20


def parser(task: str, description: str, *, hidden: int) -> options.Parser:
    """The options of both language models."""
    made = options.Parser(prog=f"python -m tasks.{task}", description=description)
    made.set_defaults(task=task)
    folder = os.environ.get("DNI_DATA")
    add = made.add_argument
    add("--data", type=Path, default=Path(folder) / "ptb" if folder else None, metavar="DIR",
        help="folder with ptb.train.txt and its kin (default: ptb in DNI_DATA)")  # fmt: skip
    add("--mode", type=options.several(MODES), default=list(MODES), metavar="MODE,...",
        help=f"what to compare, of {', '.join(MODES)} (default: all)")  # fmt: skip
    window_options.add(
        made,
        window=5,
        updates=2000,
        hidden=hidden,
        lr=2e-3,
        synthesizer_hidden=256,
        factor=FutureGradient().factor,
        bound=FutureGradient().bound,
    )
    add("--every", type=options.number(int, 1), default=500,
        help="updates between evaluations (default: %(default)s)")  # fmt: skip
    add(
        "--device",
        type=options.device,
        default=None,
        help="default: an accelerator if there is one",
    )
    add("--out", type=Path, metavar="DIR", help="folder for results, curves and checkpoint")
    add("--sample", type=options.number(int, 1), metavar="N",
        help="write N symbols by the checkpoint in --out, instead of training")  # fmt: skip
    return made


def main(
    made: options.Parser,
    symbols: Callable[[str], list[str]],
    joint: str,
    argv: Sequence[str] | None,
) -> int:
    """Run a language model from its command line; errors end it with one line and status 2.

    Args:
        made: The parser.
        symbols: Splits a text into symbols.
        joint: What stands between two symbols in a text.
        argv: The command line.
    """
    try:
        args = made.parse_args(argv)
        args.device = options.default_device() if args.device is None else args.device
        if args.sample is not None:
            print(_sampled(args, joint))
            return 0
        if args.out is not None and any((args.out / n).exists() for n in (_ROWS, _CHECKPOINT)):
            raise TaskError(f"{args.out} holds a run already: give another --out")
        text = Text(args.data, symbols)
        runs = [Run(mode, seed, text, args) for seed in args.seed for mode in args.mode]
        _train(runs, args)
        print(summary(runs))
        if args.out is not None:
            _save(args, runs, text)
    except (TaskError, DNIError) as error:
        made.error(str(error))
    except OSError as error:
        made.error(f"cannot write to --out: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    return 0


def _train(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """In turns, so that all meet the same noise of the machine."""
    total = args.seconds or args.updates

    def done(run: Run) -> float:
        return run.seconds if args.seconds else run.updates

    with tqdm(total=total * len(runs), unit="s" if args.seconds else "update") as bar:
        going = list(runs)
        while going:
            for run in going:
                before = done(run)
                for _ in range(_TURN):
                    if done(run) >= total:
                        break
                    run.update()
                    if run.updates % args.every == 0:
                        bar.set_postfix_str(f"{run.mode}: {run.evaluate():.3f} bits")
                bar.update(min(done(run), total) - before)
            going = [run for run in going if done(run) < total]
    for run in runs:
        if not run.history or run.history[-1][0] != run.updates:
            run.evaluate()


def summary(runs: Sequence[Run]) -> str:
    """A table with a line for each mode: means over seeds."""
    rows = [["mode", "window", "bits/symbol", "+-", "perplexity", "updates", "ms/update"]]
    for mode in dict.fromkeys(run.mode for run in runs):
        own = [run for run in runs if run.mode == mode]
        bits = [run.history[-1][2] for run in own]
        rows.append(
            [
                mode,
                str(own[0].window),
                f"{statistics.mean(bits):.4f}",
                f"{statistics.stdev(bits):.4f}" if len(bits) > 1 else "-",
                f"{2 ** statistics.mean(bits):.2f}",
                f"{statistics.mean(run.updates for run in own):g}",
                f"{1e3 * sum(r.seconds for r in own) / sum(r.updates for r in own):.2f}",
            ]
        )
    return record.table(rows)


def _save(args: argparse.Namespace, runs: Sequence[Run], text: Text) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"mode": run.mode, "seed": run.seed, "updates": u, "seconds": s, "bits": b}
        for run in runs
        for u, s, b in run.history
    ]
    record.replace(args.out / _ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    panels = [
        (
            label,
            [(run.mode, [h[i] for h in run.history], [h[2] for h in run.history]) for run in runs],
        )
        for i, label in enumerate(("updates", "seconds"))
    ]
    title = f"{args.task}, windows of {args.window}"
    record.replace(
        args.out / _CURVES, record.steps_picture(panels, "bits per symbol, validation", title)
    )
    best = min(runs, key=lambda run: run.history[-1][2])
    buffer = io.BytesIO()
    kept = {
        "task": args.task,
        "cell": args.cell,
        "hidden": args.hidden,
        "vocabulary": text.vocabulary,
        "network": best.network.state_dict(),
    }
    torch.save(kept, buffer)
    record.replace(args.out / _CHECKPOINT, buffer.getvalue())


def _sampled(args: argparse.Namespace, joint: str) -> str:
    if args.out is None:
        raise TaskError("--sample needs --out, the folder with the checkpoint")
    path = args.out / _CHECKPOINT
    if not path.is_file():
        raise TaskError(f"no checkpoint in {args.out}: there is nothing to sample from")
    try:
        kept = torch.load(path, map_location=args.device, weights_only=True)
        network = LanguageModel(len(kept["vocabulary"]), kept["cell"], kept["hidden"])
        network.load_state_dict(kept["network"])
    except Exception as error:  # torch.load tells of damaged files by almost any exception
        raise TaskError(f"unreadable checkpoint {path}") from error
    if kept["task"] != args.task:
        raise TaskError(f"the checkpoint in {args.out} is of {kept['task']}")
    network.to(args.device).eval()
    random = torch.Generator().manual_seed(args.seed[0])
    symbol, state, told = torch.zeros(1, 1, dtype=torch.int64, device=args.device), None, []
    with torch.no_grad():
        for _ in range(args.sample):
            output, state = network(symbol, state)
            chances = output[0, 0].softmax(0).cpu()
            drawn = int(torch.multinomial(chances, 1, generator=random))
            told.append(kept["vocabulary"][drawn])
            symbol.fill_(drawn)
    return joint.join(told)
