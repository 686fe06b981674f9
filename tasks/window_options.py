"""Command-line options of the programs that train a recurrent network on windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import options
from .cells import CELLS


def window_parser(
    task: str,
    description: str | None,
    modes: Mapping[str, str],
    default_modes: Sequence[str] | None = None,
    *,
    window: int,
    steps: int,
    hidden: int,
    lr: float,
    synthesizer_hidden: int,
    factor: float,
    bound: float | None,
    every: str,
) -> options.Parser:
    """Return a parser with the options of all such programs.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        modes: Names and descriptions of the modes that can be compared.
        default_modes: Default of ``--mode``; None for all.
        window: Default of ``--window``, as the others are of their options.
        steps: Number of training steps if no option says how long the training is.
        hidden: Default of ``--hidden``.
        lr: Default of ``--lr``.
        synthesizer_hidden: Default of ``--synthesizer-hidden``.
        factor: Default of ``--factor``.
        bound: Default of ``--bound``.
        every: What is done every ``--every`` steps.
    """
    parser = options.Parser(prog=f"python -m tasks.{task}", description=description)
    parser.set_defaults(task=task, default_steps=steps)
    parser.add_modes(modes, default_modes)
    parser.add_integer("--window", window, "time steps of a window", metavar="T")
    text = "training steps of each network, a window each"
    parser.add_steps(None, f"{text} (default: {steps})")
    seconds = "training time of each network in seconds, instead of --steps"
    parser.add_number("--seconds", None, seconds)
    parser.add_seeds()
    parser.add_argument(
        "--cell", choices=[*CELLS], default="lstm", help="recurrent layer (default: %(default)s)"
    )
    parser.add_integer("--hidden", hidden, "width of the recurrent layer")
    parser.add_training(batch=32, samples="sequences", lr=lr, whose="the network")
    parser.add_number("--clip", 1.0, "maximum norm of the gradient, 0 for none", positive=False)
    parser.add_grad_lr(3e-3)
    parser.add_integer("--synthesizer-hidden", synthesizer_hidden, "width of the synthesizers")
    parser.add_number(
        "--factor", factor, "factor of the synthetic gradient of the state", positive=False
    )
    parser.add_number(
        "--bound",
        bound,
        "maximum norm of the synthetic gradient, relative to the true gradient within a window",
    )
    parser.add_integer("--every", 500, f"training steps between {every}")
    parser.add_device()
    parser.add_threads()
    parser.add_live()
    parser.add_output_folder("metrics, checkpoint and curves", f"a new one, runs/{task}")
    parser.add_resume()
    return parser
