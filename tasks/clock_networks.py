"""The two networks of ``two_clocks``, how they talk, and how each learns without the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F

from pytorch_dni import BackwardInterface, BasicSynthesizer, synthesizer_context

from .mnist import PIXELS

State = tuple[Tensor, Tensor]  # output and cell of an LSTM
#: The fast network uses the state that the slow one had so many ticks before, for which it does
#: not have to wait.
DELAY = 2
_TO_SLOW, _TO_FAST, _GRADIENT_TO_SLOW, _GRADIENT_TO_FAST = 1, 2, 3, 4  # kinds of messages


class Fast(nn.Module):
    """Ticks at every digit, and counts odd digits.

    Args:
        period: Digits for each tick of the slow network.
        hidden: Number of features.
    """

    def __init__(self, period: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, hidden), nn.ReLU())
        self.cell = nn.LSTMCell(2 * hidden, hidden)
        self.readout = nn.Linear(hidden, period + 1)

    def forward(self, images: Tensor, message: Tensor, state: State) -> tuple[Tensor, State]:
        """Process the digits of one tick of the slow network.

        Args:
            images: ``(T, batch, 1, 28, 28)``.
            message: From the slow network, ``(batch, hidden)``.
            state: State before.

        Returns:
            Logits of the count, ``(batch, T + 1)``, and the state, whose output is the message.
        """
        for image in images:
            state = self.cell(torch.cat([self.look(image), message], 1), state)
        return self.readout(state[0]), state


class Slow(nn.Module):
    """Ticks at every T-th digit, and counts threes.

    Args:
        period: T.
        hidden: Number of features.
    """

    def __init__(self, period: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = nn.LSTMCell(hidden, hidden)
        self.readout = nn.Linear(hidden, period**2 + 1)

    def forward(self, message: Tensor, state: State) -> State:
        """Process a message ``(batch, hidden)``; the output of the state is the message back."""
        following: State = self.cell(message, state)
        return following


def new_state(batch: int, hidden: int) -> State:
    """Return the state at the beginning of sequences."""
    return torch.zeros(batch, hidden), torch.zeros(batch, hidden)


def run_both(fast: Fast, slow: Slow, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run both networks, connected.

    Args:
        fast: The fast network.
        slow: The slow network.
        images: ``(T, T, batch, 1, 28, 28)``.

    Returns:
        Logits of the fast network for each tick, and those of the slow one.
    """
    batch = images.shape[2]
    state, slow_state = new_state(batch, fast.hidden), new_state(batch, slow.hidden)
    messages = deque([torch.zeros(batch, slow.hidden)] * DELAY)
    counts = []
    for block in images:
        logits, state = fast(block, messages.popleft(), state)
        slow_state = slow(state[0], slow_state)
        messages.append(slow_state[0])
        counts.append(logits)
    return counts, slow.readout(slow_state[0])


class Mail(ABC):
    """Messages between the two networks, of several kinds, each in its order."""

    @abstractmethod
    def send(self, kind: int, message: Tensor) -> None:
        """Send a message, without waiting for the other network."""

    @abstractmethod
    def take(self, kind: int) -> Tensor:
        """Return the next message of a kind."""


class LocalMail(Mail):
    """Messages inside one process."""

    def __init__(self) -> None:
        self._messages: dict[int, deque[Tensor]] = {}

    def send(self, kind: int, message: Tensor) -> None:
        """Keep a message."""
        self._messages.setdefault(kind, deque()).append(message.detach().clone())

    def take(self, kind: int) -> Tensor:
        """Return the next message of a kind, which must be there."""
        return self._messages[kind].popleft()


class RankMail(Mail):
    """Messages between two ranks.

    Args:
        other: The other rank.
        shape: Shape of all messages.
        period: T; a few sequences of messages may be under way.
    """

    def __init__(self, other: int, shape: Sequence[int], period: int) -> None:
        self._other, self._shape = other, [*shape]
        self._most = 8 * period
        self._sent: deque[tuple[Any, Tensor]] = deque()

    def send(self, kind: int, message: Tensor) -> None:
        """Begin to send."""
        message = message.detach().clone()
        self._sent.append((distributed.isend(message, self._other, tag=kind), message))
        if len(self._sent) > self._most:
            self._sent.popleft()[0].wait()

    def take(self, kind: int) -> Tensor:
        """Wait for the next message of a kind."""
        message = torch.empty(self._shape)
        distributed.recv(message, self._other, tag=kind)
        return message

    def close(self) -> None:
        """Wait until all is sent."""
        while self._sent:
            self._sent.popleft()[0].wait()


class ClockLearner:
    """Trains one network on what it gets from the other one.

    The gradient of a message is predicted when it is sent. The true gradient, which comes one or
    two sequences later, trains the synthesizer for the message that it belongs to.

    Args:
        network: The network.
        mail: Messages from and to the other network.
        lr: Learning rate.
        context_dim: Width of the context of predictions; None for no context.
    """

    def __init__(
        self, network: nn.Module, mail: Mail, lr: float, context_dim: int | None = None
    ) -> None:
        self.network, self.mail = network, mail
        self.opt = torch.optim.Adam(network.parameters(), lr=lr)
        hidden = int(network.hidden)
        synthesizer = BasicSynthesizer(hidden, 1, hidden, context_dim=context_dim)
        self.interface = BackwardInterface(synthesizer)
        #: Messages whose true gradient has not been learned, with their contexts, by sequence.
        self.sent: deque[list[tuple[Tensor, Tensor | None]]] = deque()

    def learn_late(self, kind: int, sequences: int) -> None:
        """Learn from true gradients until those of some sequences are left."""
        while len(self.sent) > sequences:
            for message, context in self.sent.popleft():
                with synthesizer_context(context):
                    self.interface.send(self.mail.take(kind), message)


class FastLearner(ClockLearner):
    """Updates the fast network once in each tick of the slow one."""

    network: Fast

    def begin(self, batch: int) -> None:
        """Begin sequences; learn from the gradients of those before the last ones."""
        self.learn_late(_GRADIENT_TO_FAST, 1)
        self._state = new_state(batch, self.network.hidden)
        self.sent.append([])

    def tick(self, tick: int, images: Tensor, odd: Tensor, threes: Tensor) -> None:
        """Run and update; send the state, and the gradient of the message that came.

        Args:
            tick: Number of the tick of the slow network.
            images: Its digits.
            odd: How many of them are odd.
            threes: How many of them are threes, for the context, if there is one.
        """
        message = torch.zeros(images.shape[1], self.network.hidden)
        if tick >= DELAY:
            message = self.mail.take(_TO_FAST).requires_grad_()
        logits, state = self.network(images, message, self._state)
        output = state[0].detach()
        self.mail.send(_TO_SLOW, output)
        context = None if self.interface.context_size is None else threes
        self.sent[-1].append((output, context))
        self.opt.zero_grad()
        loss = F.cross_entropy(logits, odd)
        with synthesizer_context(context):
            synthetic = self.interface.receive(output)
        torch.autograd.backward([loss, state[0]], [None, synthetic])
        self.opt.step()
        if message.grad is not None:
            self.mail.send(_GRADIENT_TO_SLOW, message.grad)
        self._state = output, state[1].detach()

    def end(self, threes: Tensor) -> None:
        """End sequences."""

    def finish(self) -> None:
        """Learn from all gradients."""
        self.learn_late(_GRADIENT_TO_FAST, 0)


class SlowLearner(ClockLearner):
    """Updates the slow network once for each sequence, after its last tick."""

    network: Slow

    def begin(self, batch: int) -> None:
        """Begin sequences; learn from the gradients of the last ones."""
        self.learn_late(_GRADIENT_TO_SLOW, 0)
        self._state = new_state(batch, self.network.hidden)
        self._messages: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def tick(self, tick: int, images: Tensor, odd: Tensor, threes: Tensor) -> None:
        """Run on the next message, and send the state, if it will be used."""
        self._messages.append(self.mail.take(_TO_SLOW).requires_grad_())
        self._state = self.network(self._messages[-1], self._state)
        self._outputs.append(self._state[0])
        if tick + DELAY < int(self.network.readout.out_features**0.5):
            self.mail.send(_TO_FAST, self._state[0])

    def end(self, threes: Tensor) -> None:
        """Learn from the loss and from the synthetic gradients of the messages that were used."""
        used = self._outputs[:-DELAY]
        loss = F.cross_entropy(self.network.readout(self._outputs[-1]), threes)
        synthetic = [self.interface.receive(output.detach()) for output in used]
        self.opt.zero_grad()
        torch.autograd.backward([loss, *used], [None, *synthetic])
        self.opt.step()
        for message in self._messages:
            assert message.grad is not None
            self.mail.send(_GRADIENT_TO_FAST, message.grad)
        self.sent.append([(output.detach(), None) for output in used])

    def finish(self) -> None:
        """Learn from all gradients."""
        self.learn_late(_GRADIENT_TO_SLOW, 0)
