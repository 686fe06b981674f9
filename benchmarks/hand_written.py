"""The loop that DNI saves its user: synthetic gradients written out by hand, for one network.

The same arithmetic as ``DNI(network, optim=opt, context_size=classes)``, step for step; the tests
compare the parameters of both.
"""

from __future__ import annotations

import torch
from torch import nn, Tensor
from torch.nn import functional as F

DECAY = 0.99


class HandWritten:
    """Trains a network given as parts; between two parts stands a synthesizer.

    Args:
        parts: The network's parts in order; the last ends in the logits.
        synthesizers: One behind each part but the last, from (activation, one-hot label).
        opt: The network's optimizer.
        synthesizer_opt: The synthesizers' optimizer.
        classes: Number of classes.
    """

    def __init__(
        self,
        parts: list[nn.Module],
        synthesizers: list[nn.Module],
        opt: torch.optim.Optimizer,
        synthesizer_opt: torch.optim.Optimizer,
        classes: int,
    ) -> None:
        self.parts, self.synthesizers = parts, synthesizers
        self.opt, self.synthesizer_opt = opt, synthesizer_opt
        self.classes = classes
        zero = next(parts[0].parameters()).new_zeros(())
        self.mean_square = [zero.clone() for _ in synthesizers]
        self.scale = [zero for _ in synthesizers]
        self.count = 0

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of training."""
        self.opt.zero_grad()
        self.synthesizer_opt.zero_grad()
        labels = F.one_hot(y, self.classes).to(x.dtype)
        outputs, inputs = [], []
        for part in self.parts[:-1]:
            x = part(x)
            outputs.append(x)
            x = x.detach().requires_grad_()
            inputs.append(x)
        F.cross_entropy(self.parts[-1](x), y).backward()
        self.count += 1
        for i in reversed(range(len(inputs))):
            self._cut(i, outputs[i], inputs[i], labels)
        self.synthesizer_opt.step()
        self.opt.step()

    def _cut(self, i: int, output: Tensor, received: Tensor, labels: Tensor) -> None:
        true = received.grad
        assert true is not None
        predicted = self.synthesizers[i](torch.cat([received.detach(), labels], 1))
        synthetic = predicted.detach() * self.scale[i]
        with torch.no_grad():
            weight = (1 - DECAY) / (1 - DECAY**self.count)
            self.mean_square[i].lerp_(true.square().mean(), weight)
            self.scale[i] = self.mean_square[i].sqrt().clamp_min(1e-30)
        F.mse_loss(predicted, true / self.scale[i]).backward()
        output.backward(synthetic)
