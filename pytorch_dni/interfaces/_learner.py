"""Training synthesizers: one optimizer step for all lessons of a backward pass, at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast
from weakref import ref

import torch
from torch import nn, Tensor
from torch.optim import Optimizer

from .._backward_pass import call_after_backward_pass, current_backward_pass
from .._checkpoint import number
from .._normalization import Scalar
from .._torch import do_not_skip_step, skip_step_if
from ..errors import DNIError
from ._collected import CollectedLessons
from ._optimizer import build_optimizer, check_lr, check_optim, followed_lr, OptimizerFactory
from ._optimizer_state import OptimizerState
from ._pending import Lesson, PendingUpdate, Undo

Trained = tuple[nn.Module, float]  # a module and its default learning rate


class Learner:
    """The synthesizers' own optimizer, and the lessons collected in a running backward pass.

    Every cut that a backward pass reaches gives its lesson; when that pass ends, one further
    backpropagation gives all synthesizers their gradients and one optimizer step applies them.

    Args:
        optim: ``"adam"``, ``"adamw"``, ``"rmsprop"``, ``"sgd"``, an optimizer class, or any
            callable ``(parameters, lr=...) -> Optimizer``. None leaves the gradients in the
            parameters' ``grad``, for the user's optimizer.
        lr: Learning rate; None takes each synthesizer's own default.
        repeats: How many steps are taken on the lessons of a pass.
        network_optim: The network's optimizer, whose learning rate that of some synthesizers
            follows; None for fixed learning rates.

    Attributes:
        optimizer: The optimizer; None before there is anything to train.
        order: Names of the interfaces in the order of the optimizer's state.
        steps: How often it has learned: once for each backward pass, and for each call outside of
            one.
        loads: How often a saved state has replaced what it trains.

    Raises:
        SynthesizerError: ``optim`` is none of these.
    """

    def __init__(
        self,
        optim: str | OptimizerFactory | None,
        lr: float | None,
        repeats: int = 1,
        network_optim: Optimizer | None = None,
    ) -> None:
        check_optim(optim)
        check_lr(lr)
        self._optim = optim
        self._lr = lr
        self.repeats = repeats
        self._network_optim = network_optim
        self._groups: dict[tuple[float, float | None], int] = {}
        # Each is held by its backward pass alone.
        self._collected: dict[int, ref[CollectedLessons]] = {}
        self._builds_state = False
        self.optimizer: Optimizer | None = None
        self.order: dict[str, None] = {}
        self.steps = 0
        self.loads = 0

    def __getstate__(self) -> dict[str, Any]:
        # Lessons of a running pass hold graphs, which cannot be copied.
        return {**self.__dict__, "_collected": {}}

    def add(self, trained: Iterable[Trained], name: str = "") -> None:
        """Add the modules of an interface, by its name, to those that are trained."""
        self.order[name] = None
        for module, default_lr in trained:
            parameters = [p for p in module.parameters() if p.requires_grad]
            if parameters and self._optim is not None:
                ratio = getattr(module, "lr_ratio", None)
                follows = self._lr is None and followed_lr(self._network_optim, 1.0) is not None
                lr = default_lr if self._lr is None else self._lr
                self._add_parameters(parameters, lr, ratio if follows else None)

    def _add_parameters(
        self, parameters: list[nn.Parameter], lr: float, ratio: float | None
    ) -> None:
        assert self._optim is not None
        kind = lr, ratio
        if self.optimizer is None:
            self.optimizer = build_optimizer(self._optim, parameters, lr)
            self._builds_state = bool(self.optimizer.state)
            self._groups[kind] = 0
            return
        if self._builds_state:
            # Such optimizers (Adagrad) make the state of parameters in their constructor only.
            self.optimizer.state.update(build_optimizer(self._optim, parameters, lr).state)
        if kind in self._groups:
            # Into the same group: synthesizers that share options share a kernel.
            self.optimizer.param_groups[self._groups[kind]]["params"].extend(parameters)
        else:
            self._groups[kind] = len(self.optimizer.param_groups)
            self.optimizer.add_param_group({"params": parameters, "lr": lr})

    def collect(self, update: PendingUpdate) -> None:
        """Apply an update now, and learn its lesson at the end of the running backward pass.

        Outside of a backward pass the lesson is learned at once.

        Raises:
            DNIError: Another thread runs a backward pass.
        """
        collected = self._collect_pass()
        if collected is None:
            self.train([update])
        else:
            collected.add(update)

    def mark_step(self) -> None:
        """Count the running backward pass as a step, also if it has no lesson."""
        collected = self._collect_pass()
        if collected is None:
            self._step([])
        else:
            collected.count()

    def collect_undo(self, undo: Undo) -> None:
        """Have a change that was made taken back, where the running backward pass raises."""
        collected = self._collect_pass()
        if collected is not None:
            collected.add_undo(undo)

    def _collect_pass(self) -> CollectedLessons | None:
        """Return the lessons of the running backward pass; None outside of one."""
        number = current_backward_pass()
        if number is None:
            return None
        known = self._collected.get(number)
        collected = None if known is None else known()
        if collected is None:
            self._check_thread()
            collected = CollectedLessons()
            self._collected[number] = ref(collected)
            call_after_backward_pass(partial(self._finish, number, collected))
        return collected

    def _check_thread(self) -> None:
        """Raise where another thread runs a backward pass; forget passes that failed."""
        running = {n: known for n, known in self._collected.items() if known() is not None}
        self._collected = running
        if any(other is not None and other.elsewhere for other in (r() for r in running.values())):
            raise DNIError(
                "two threads run backward passes of one network at once, whose synthesizers "
                "learn at the end of each: run them one after another, or give each thread a "
                "copy.deepcopy() of the wrapper"
            )

    def _finish(self, number: int, collected: CollectedLessons) -> None:
        """Train on all lessons of a backward pass: one backpropagation, one step."""
        lessons = collected.finish()
        known = number in self._collected  # not where a state has been loaded since
        if collected.counts:
            self._step(lessons if known else [])
        self._collected.pop(number, None)

    def train(self, updates: Iterable[PendingUpdate]) -> None:
        """Apply updates and learn their lessons at once; this counts as a step."""
        self._step([update.apply() for update in updates])

    def _step(self, lessons: Sequence[Lesson]) -> None:
        self.steps += 1
        self.teach(lessons)

    def teach(self, lessons: Sequence[Lesson]) -> None:
        """Learn lessons at once, without counting a step."""
        self._backpropagate(lessons)
        if self.optimizer is None or not lessons:
            return
        if self._may_step(lessons):
            self._follow()
            self.optimizer.step()
            for _ in range(self.repeats - 1):
                self._clear_grads()
                self._backpropagate([lesson.again() for lesson in lessons if lesson.again])
                self.optimizer.step()
        self._clear_grads()

    def _follow(self) -> None:
        """Set the learning rates that follow the network's."""
        assert self.optimizer is not None
        for (_, ratio), group in self._groups.items():
            lr = None if ratio is None else followed_lr(self._network_optim, ratio)
            if lr is not None:
                self.optimizer.param_groups[group]["lr"] = lr

    def _backpropagate(self, lessons: Iterable[Lesson]) -> None:
        """Add the gradients of lessons to the ``grad`` of the synthesizers' parameters."""
        lessons = [*lessons]
        for lesson in lessons:
            for parameter, grad in lesson.grads or ():
                if parameter.requires_grad:
                    before = parameter.grad
                    parameter.grad = grad if before is None else before + grad
        in_graph = [lesson for lesson in lessons if lesson.output is not None]
        if in_graph:
            outputs = [cast(Tensor, lesson.output) for lesson in in_graph]
            errors = [cast(Tensor, lesson.error) for lesson in in_graph]
            torch.autograd.backward(outputs, errors)

    def _may_step(self, lessons: Sequence[Lesson]) -> bool:
        """Return whether to step: gradients that overflow (loss scaling makes some) teach nothing.

        A fused optimizer reads the flag on its device; asking for it here would stall the queue.
        """
        assert self.optimizer is not None
        do_not_skip_step(self.optimizer)
        total: Scalar = 0.0
        for square in (lesson.square for lesson in lessons if lesson.square is not None):
            # Parts of a network may lie on different devices.
            if isinstance(square, Tensor) and isinstance(total, Tensor):
                square = square.to(total)
            total = total + square
        if not isinstance(total, Tensor):
            return math.isfinite(total)
        if self.optimizer.defaults.get("fused"):
            skip_step_if(self.optimizer, total.isfinite().logical_not().float())
            return True
        return bool(total.isfinite())

    def _clear_grads(self) -> None:
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def close(self) -> None:
        """Release all synthesizers."""
        self.optimizer = None
        self._collected.clear()

    def move_state(self) -> None:
        """Move the optimizer's state to the device and type of the synthesizers."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(self.optimizer.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        state = None if self.optimizer is None else self._optimizer_state(self.optimizer).save()
        return {
            "steps": self.steps,
            "order": [*self.order],
            "kind": type(self.optimizer).__name__,
            "optimizer": state,
        }

    def _optimizer_state(self, optimizer: Optimizer) -> OptimizerState:
        assert self._optim is not None
        lr, _ = next(iter(self._groups))
        return OptimizerState(optimizer, partial(build_optimizer, self._optim, lr=lr))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; the same interfaces must have been added in the same order.

        Raises:
            ValueError: The state belongs to another kind of optimizer.
        """
        kind = type(self.optimizer).__name__
        if kind != state["kind"]:
            raise ValueError(f"the saved optimizer is {state['kind']}, this one is {kind}")
        self.steps = number(state["steps"])
        if self.optimizer is not None:
            self._optimizer_state(self.optimizer).load(state["optimizer"])

    def new(self) -> Learner:
        """Return a learner with the same settings that trains nothing yet."""
        return Learner(self._optim, self._lr, self.repeats, self._network_optim)

    def replace_by(self, other: Learner) -> None:
        """Take over what another learner trains, with its optimizer and its count of steps."""
        self._groups, self.optimizer = other._groups, other.optimizer
        self._builds_state = other._builds_state
        self.order, self.steps = other.order, other.steps
        self.loads += 1
        self._collected.clear()
