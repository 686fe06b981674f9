"""Language models on windows of a text: what the character and the word model share."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from pytorch_dni import DNI, DNIError, Future

from . import options, record
from .cells import CELLS, detached
from .options import TaskError
from .task import seed_of

#: Truncated backpropagation on windows, and on windows four times as long; synthetic gradients.
MODES = ("bptt", "bptt4", "dni")
_ROWS, _CURVES, _CHECKPOINT = "results.jsonl", "curves.png", "checkpoint.pt"
_TURN = 20
_SPLITS = ("train", "valid", "test")


class Text:
    """Penn Treebank as numbers.

    Args:
        folder: Holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``.
        symbols: Splits a text into symbols.

    Attributes:
        vocabulary: The symbols of the training text, in their order of appearance.
        splits: Their numbers in each text.

    Raises:
        TaskError: A file is missing.
    """

    def __init__(self, folder: Path | None, symbols: Callable[[str], list[str]]) -> None:
        if folder is None:
            raise TaskError("where is the Penn Treebank? give --data DIR")
        texts = {}
        for split in _SPLITS:
            path = folder / f"ptb.{split}.txt"
            try:
                texts[split] = symbols(path.read_text())
            except (OSError, UnicodeDecodeError) as error:
                raise TaskError(f"--data {folder}: cannot read ptb.{split}.txt") from error
        self.vocabulary = list(dict.fromkeys(texts["train"]))
        number = {symbol: i for i, symbol in enumerate(self.vocabulary)}
        unknown = number.get("<unk>", 0)
        self.splits = {
            split: torch.tensor([number.get(symbol, unknown) for symbol in text])
            for split, text in texts.items()
        }


class LanguageModel(nn.Module):
    """Embedding, recurrent layer, and a linear layer with the embedding's weights.

    Shape:
        Symbols ``(time, batch)`` to logits ``(time, batch, vocabulary)`` and the state.
    """

    def __init__(self, vocabulary: int, cell: str, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.core = CELLS[cell](hidden, hidden)
        self.head = nn.Linear(hidden, vocabulary)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, symbols: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits of the next symbols, and the last state."""
        output, state = self.core(self.embedding(symbols), state)
        return self.head(output), state


class Run:
    """One mode, one seed."""

    def __init__(self, mode: str, seed: int, text: Text, args: argparse.Namespace) -> None:
        self.mode, self.seed = mode, seed
        self.updates, self.seconds = 0, 0.0
        self.history: list[tuple[int, float, float]] = []
        self._args = args
        self.window = 4 * args.window if mode == "bptt4" else args.window
        torch.manual_seed(seed_of(seed, -1))
        self._random = torch.Generator().manual_seed(seed_of(seed, 0))
        self.network = LanguageModel(len(text.vocabulary), args.cell, args.hidden).to(args.device)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=args.lr)
        self.net: nn.Module = self.network
        if mode == "dni":
            self.net = DNI(
                self.network,
                self._optimizer,
                hidden_size=args.synthesizer_hidden,
                future=Future(factor=args.factor, bound=args.bound),
                grad_lr=args.grad_lr,
            )
        self._train = _streams(text.splits["train"], args.batch).to(args.device)
        self._valid = _streams(text.splits["valid"], 10).to(args.device)
        self._place, self._state = 0, None

    def update(self) -> None:
        """Learn from one window."""
        if self._place + 1 >= len(self._train):
            self._place, self._state = 0, None
        # Windows begin elsewhere in each pass through the text.
        size = self.window
        if not self._place:
            size = int(torch.randint(self.window, (), generator=self._random)) + 1
        end = min(self._place + size, len(self._train) - 1)
        given, asked = self._train[self._place : end], self._train[self._place + 1 : end + 1]
        start = time.perf_counter()
        output, state = self.net(given, self._state)
        loss = F.cross_entropy(output.flatten(0, 1), asked.flatten())
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self._args.clip)
        self._optimizer.step()
        if self._args.device.type != "cpu":
            torch.accelerator.synchronize(self._args.device)
        self.seconds += time.perf_counter() - start
        self._place, self._state = end, detached(state)
        self.updates += 1

    def evaluate(self) -> float:
        """Bits for each symbol of the validation text."""
        self.net.eval()
        total, count, state = 0.0, 0, None
        with torch.no_grad():
            for place in range(0, len(self._valid) - 1, 200):
                end = min(place + 200, len(self._valid) - 1)
                output, state = self.net(self._valid[place:end], state)
                asked = self._valid[place + 1 : end + 1].flatten()
                total += F.cross_entropy(output.flatten(0, 1), asked, reduction="sum").item()
                count += len(asked)
        self.net.train()
        bits = total / count / math.log(2)
        self.history.append((self.updates, self.seconds, bits))
        return bits


def _streams(numbers: Tensor, batch: int) -> Tensor:
    length = len(numbers) // batch
    if length < 2:
        raise TaskError(f"--batch {batch} is too much for a text of {len(numbers)} symbols")
    return numbers[: length * batch].view(batch, length).t().contiguous()


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
    add("--window", type=options.number(int, 1), default=5, metavar="T",
        help="steps of a window (default: %(default)s)")  # fmt: skip
    add("--updates", type=options.number(int, 1), default=2000,
        help="windows to learn from (default: %(default)s)")  # fmt: skip
    add("--seconds", type=options.number(float, 0, above=True),
        help="learn for so long instead, in each mode and seed")  # fmt: skip
    add("--every", type=options.number(int, 1), default=500,
        help="updates between evaluations (default: %(default)s)")  # fmt: skip
    add("--seed", type=options.seeds, default=[1], metavar="SEED,...", help="default: 1")
    add("--cell", choices=[*CELLS], default="lstm", help="default: %(default)s")
    add("--hidden", type=options.number(int, 1), default=hidden,
        help="width of embedding and recurrent layer (default: %(default)s)")  # fmt: skip
    add("--batch", type=options.number(int, 2), default=32,
        help="streams of text at a time (default: %(default)s)")  # fmt: skip
    add("--lr", type=options.number(float, 0, above=True), default=2e-3,
        help="the network's learning rate (default: %(default)s)")  # fmt: skip
    add("--clip", type=options.number(float, 0, above=True), default=1.0,
        help="norm that gradients are clipped to (default: %(default)s)")  # fmt: skip
    add("--grad-lr", type=options.number(float, 0, above=True), default=3e-3,
        help="the synthesizers' learning rate (default: %(default)s)")  # fmt: skip
    add("--synthesizer-hidden", type=options.number(int, 1), default=256,
        help="width of the synthesizers (default: %(default)s)")  # fmt: skip
    add("--factor", type=options.number(float, 0), default=Future().factor,
        help="share of the synthetic gradient that is sent in (default: %(default)s)")  # fmt: skip
    add("--bound", type=options.number(float, 0, above=True), default=Future().bound,
        help="its length at most, in those of true ones (default: %(default)s)")  # fmt: skip
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
