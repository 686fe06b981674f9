"""Command-line options of the programs, one word for each thing, and how a program ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from pytorch_dni import DNIError

from .argument_types import data_folder, default_device, device, LARGEST, names, number, seeds
from .errors import memory_reason, TaskError

_SIZES = ("batch", "hidden", "depth", "length", "width", "window", "synthesizer-hidden", "bits")


#: Message when Ctrl-C ends a program that saves checkpoints.
INTERRUPTED = "interrupted; --resume, with --out and its folder, continues from the last checkpoint"


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def add_integer(
        self,
        name: str,
        default: int | None,
        help: str,
        *,
        minimum: int = 1,
        maximum: int = LARGEST,
        **settings: Any,
    ) -> None:
        """Add an option that takes a whole number from ``minimum`` to ``maximum``.

        Further settings are those of ``add_argument``.
        """
        self._add(name, number(int, minimum, maximum), default, help, settings)

    def add_number(
        self,
        name: str,
        default: float | None,
        help: str,
        *,
        positive: bool = True,
        minimum: float = 0,
        maximum: float = LARGEST,
        **settings: Any,
    ) -> None:
        """Add an option that takes a number from ``minimum`` to ``maximum``.

        Args:
            name: Name of the option.
            default: Its default.
            help: Its help text.
            positive: Whether ``minimum`` itself is excluded.
            minimum: The smallest number.
            maximum: The largest number.
            **settings: Those of ``add_argument``.
        """
        convert = number(float, minimum, maximum, exclusive=positive)
        self._add(name, convert, default, help, settings)

    def add_modes(self, modes: Mapping[str, str], default: Sequence[str] | None = None) -> None:
        """Add the option ``--mode``.

        Args:
            modes: Names and descriptions of the modes.
            default: Names of the modes that are compared by default; None for all.
        """
        descriptions = "; ".join(f"{mode}: {text}" for mode, text in modes.items())
        self.add_argument(
            "--mode",
            type=names(modes),
            default=[*(modes if default is None else default)],
            metavar="MODE,...",
            help=f"modes to compare (default: {','.join(default or ['all'])}). {descriptions}",
        )

    def add_steps(self, default: int | None, text: str = "training steps") -> None:
        """Add the option ``--steps``; the default stands in the text where it is None."""
        self.add_integer("--steps", default, text)

    def add_epochs(self, text: str = "passes over the data, instead of --steps") -> None:
        """Add the option ``--epochs``, without a default."""
        self.add_integer("--epochs", None, text)

    def add_training(
        self, *, batch: int, samples: str, lr: float, whose: str, minimum: int = 2
    ) -> None:
        """Add the options ``--batch`` and ``--lr``.

        Args:
            batch: Default of ``--batch``.
            samples: What a batch holds, for the help text.
            lr: Default of ``--lr``.
            whose: What is trained at this rate, for the help text.
            minimum: The smallest batch.
        """
        self.add_integer("--batch", batch, f"{samples} in a training step", minimum=minimum)
        self.add_number("--lr", lr, f"learning rate of {whose}")

    def add_grad_lr(self, default: float | None = None) -> None:
        """Add the option ``--grad-lr``."""
        text = "learning rate of the synthesizers"
        own = " (default: depends on their class)" if default is None else ""
        self.add_number("--grad-lr", default, text + own)

    def add_seeds(self, default: Sequence[int] = (1,)) -> None:
        """Add the option ``--seed``, which takes several seeds."""
        self.add_argument(
            "--seed",
            type=seeds,
            default=[*default],
            metavar="SEED,...",
            help="seeds of weights and data; the table summarises all of them (default: "
            f"{','.join(map(str, default))})",
        )

    def add_seed(self) -> None:
        """Add the option ``--seed``, which takes one seed."""
        self.add_integer("--seed", 1, "seed of weights and data", minimum=0)

    def add_depth(self, default: int, layers: str, name: str = "--depth") -> None:
        """Add the option ``--depth``."""
        # Layers are built one by one: very many would never come to an end.
        self.add_integer(name, default, f"number of {layers}", maximum=1000)

    def add_resume(self) -> None:
        """Add the option ``--resume``."""
        text = "continue the run whose folder is --out"
        self.add_argument("--resume", action="store_true", help=text)

    def add_threads(self, default: str = "1 for a small network, else one for each core") -> None:
        """Add the option ``--threads``."""
        text = f"threads that compute on the CPU (default: {default})"
        self.add_integer("--threads", None, text, maximum=1024)

    def add_timeout(self) -> None:
        """Add the option ``--timeout``."""
        text = "seconds after which a silent rank counts as lost"
        self.add_number("--timeout", 60.0, text, maximum=10**6)

    def add_live(self) -> None:
        """Add the option ``--live``."""
        self.add_argument(
            "--live",
            action="store_true",
            help="show loss and stats() of all cuts while training, where standard error is a "
            "terminal",
        )

    def add_data(self, content: str, default: str = "the environment variable DNI_DATA") -> None:
        """Add the option ``--data``, the folder that holds what ``content`` says."""
        self.add_argument(
            "--data",
            type=Path,
            default=data_folder(),
            metavar="DIR",
            help=f"folder that holds {content} (default: {default})",
        )

    def add_device(self) -> None:
        """Add the option ``--device``."""
        self.add_argument(
            "--device",
            type=device,
            default=default_device(),
            help="device to train on (default: %(default)s)",
        )

    def add_output_folder(self, content: str, default: str = "none is written") -> None:
        """Add the option ``--out``, a folder for what ``content`` says."""
        text = f"folder for {content} (default: {default})"
        self.add_argument("--out", type=Path, metavar="DIR", help=text)

    def size_options(self) -> str:
        """Return the options that determine how much memory is needed, as text."""
        known = [f"--{name}" for name in _SIZES if f"--{name}" in self._option_string_actions]
        return " or ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))

    def _add(
        self,
        name: str,
        kind: Callable[[str], Any],
        default: Any,
        help: str,
        settings: dict[str, Any],
    ) -> None:
        if default is not None:
            help += " (default: %(default)s)"
        self.add_argument(name, type=kind, default=default, help=help, **settings)


def run_program(parser: Parser, program: Callable[[], None], when_interrupted: str = "") -> int:
    """Run a program and return its exit status.

    Args:
        parser: Reports an error that the user can correct, in one line, and exits with status 2.
        program: The program.
        when_interrupted: Message when Ctrl-C ends the program, whose exit status is then 130.
    """
    threads = torch.get_num_threads()
    try:
        program()
    except (TaskError, DNIError, RuntimeError, MemoryError, OverflowError) as error:
        if (reason := memory_reason(error)) is not None:
            sizes = parser.size_options()
            parser.error(f"{reason}: give a smaller {sizes}" if sizes else reason)
        if not isinstance(error, TaskError | DNIError):
            raise
        parser.error(str(error))
    except KeyboardInterrupt:
        if when_interrupted:
            print(when_interrupted, file=sys.stderr)
        return 130
    finally:
        torch.set_num_threads(threads)
    return 0
