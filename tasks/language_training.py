"""Programs that train a language model on windows of a text with several modes."""

from __future__ import annotations

import argparse
import io
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from pytorch_dni import FutureGradient

from . import files, options, output_folder, plots, resuming
from .errors import TaskError
from .language_runs import add_text_folder, LanguageModel, LanguageRun, MODES, PennTreebank
from .window_options import window_parser
from .window_program import WindowProgram
from .window_training import milliseconds_per_step

NETWORK = "network.pt"


def language_parser(task: str, description: str | None, *, hidden: int) -> options.Parser:
    """Return a parser with the options of both language models.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        hidden: Default of ``--hidden``.
    """
    parser = window_parser(
        task,
        description,
        MODES,
        window=5,
        steps=2000,
        hidden=hidden,
        lr=2e-3,
        synthesizer_hidden=256,
        factor=FutureGradient().factor,
        bound=FutureGradient().bound,
        every="evaluations",
    )
    add_text_folder(parser)
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
        if (args := parser.parse_args(argv)).sample is not None:
            print(separator.join(_sample(args)))
            return
        args, checkpoint = resuming.parse(parser, argv)
        folder = output_folder.OutputFolder(args.out, args.task, args.resume, [NETWORK])
        text = PennTreebank(args.data, tokenize)
        LanguageProgram(args, text).train(folder, checkpoint)

    return options.run_program(parser, program, options.INTERRUPTED)


class LanguageProgram(WindowProgram[LanguageRun]):
    """Training of language models.

    Args:
        args: Options of the program.
        text: The text.
    """

    steps_per_block = 20

    def __init__(self, args: argparse.Namespace, text: PennTreebank) -> None:
        super().__init__(args)
        self._text = text

    def make_runs(self) -> list[LanguageRun]:
        """Return a run for each mode and seed."""
        args = self.args
        return [
            LanguageRun(mode, seed, self._text, args) for seed in args.seed for mode in args.mode
        ]

    @property
    def header(self) -> list[str]:
        """Names of the figures."""
        return ["window", "bits/token", "std", "perplexity", "steps", "step ms"]

    @property
    def explanation(self) -> str:
        """What the figures mean."""
        return (
            "window: tokens that a training step sees. bits/token: loss on the validation text, "
            "the mean over seeds, with their standard deviation; perplexity: two to this power. "
            "step ms: time of a training step."
        )

    @property
    def value(self) -> str:
        """Name of the values in the history of a run."""
        return "bits"

    def summary(self, runs: Sequence[LanguageRun]) -> list[str]:
        """Return the figures of a mode; means are over seeds."""
        bits = [run.history[-1].value for run in runs]
        return [
            str(runs[0].window),
            f"{statistics.mean(bits):.4f}",
            f"{statistics.stdev(bits):.4f}" if len(bits) > 1 else "-",
            f"{2 ** min(statistics.mean(bits), 1000):.2f}",
            f"{statistics.mean(run.steps for run in runs):g}",
            milliseconds_per_step(runs),
        ]

    def after_step(self, run: LanguageRun) -> None:
        """Evaluate a run regularly."""
        if run.steps % self.args.every == 0:
            run.evaluate()

    def finish(self) -> None:
        """Evaluate the runs that have been trained further."""
        for run in self.runs:
            if not run.history or run.history[-1].steps != run.steps:
                run.evaluate()

    def draw(self) -> bytes:
        """Draw the losses over training."""
        histories = [(run.mode, run.history) for run in self.runs]
        title = f"{self.args.task}, windows of {self.args.window}"
        return plots.plot_histories(histories, "validation loss, bits per token", title)

    def others(self) -> Mapping[str, bytes]:
        """Return the network with the smallest loss, for ``--sample``."""
        evaluated = [run for run in self.runs if run.history]
        best = min(evaluated, key=lambda run: run.history[-1].value)
        state = {
            "task": self.args.task,
            "cell": self.args.cell,
            "hidden": self.args.hidden,
            "vocabulary": self._text.vocabulary,
            "network": best.network.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return {NETWORK: buffer.getvalue()}


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
    """Return the model in ``--out`` and its vocabulary.

    Raises:
        TaskError: There is no model, or it is not one of this task.
    """
    if args.out is None:
        raise TaskError("--sample needs --out, the folder of the run")
    path = args.out / NETWORK
    saved = files.load_checkpoint(path, args.device, "sample from")
    try:
        vocabulary = saved["vocabulary"]
        network = LanguageModel(len(vocabulary), saved["cell"], saved["hidden"])
        network.load_state_dict(saved["network"])
        task = saved["task"]
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise TaskError(f"{path} is not the network of a language model") from error
    if task != args.task:
        raise TaskError(f"the network in {args.out} is of {task}")
    return network.to(args.device).eval(), vocabulary
