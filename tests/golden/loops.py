"""Training loops that users write. Each takes a wrapper, an optimizer and the data of a run."""

import copy
import pickle
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_dni import synthesizer_context


class Run(NamedTuple):
    """Hold the data of a run: inputs, a context for each (or None), and the loss of an output."""

    inputs: list[torch.Tensor]
    contexts: list[torch.Tensor | None]
    loss: Any

    def losses(self, net, *steps):
        """Return the losses of some steps, each after a forward pass in its context."""
        found = []
        for i in steps:
            with synthesizer_context(self.contexts[i]):
                out = net(self.inputs[i])
            found.append(self.loss(out))
        return found

    def part(self, begin, end):
        """Return the run of some of the steps."""
        return Run(self.inputs[begin:end], self.contexts[begin:end], self.loss)


def plain(net, opt, run):
    for i in range(len(run.inputs)):
        opt.zero_grad()
        run.losses(net, i)[0].backward()
        opt.step()
    return net


def zeroed_between(net, opt, run):
    for i in range(len(run.inputs)):
        (loss,) = run.losses(net, i)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return net


def accumulated(net, opt, run):
    for i in range(len(run.inputs)):
        (run.losses(net, i)[0] / 4).backward()
        if i % 4 == 3:
            opt.step()
            opt.zero_grad()
    return net


def two_at_once(net, opt, run):
    for i in range(0, len(run.inputs), 2):
        losses = run.losses(net, i, i + 1)
        opt.zero_grad()
        for loss in losses:
            loss.backward()
        opt.step()
    return net


def one_sum(net, opt, run):
    for i in range(0, len(run.inputs), 2):
        opt.zero_grad()
        sum(run.losses(net, i, i + 1)).backward()
        opt.step()
    return net


def clipped_and_skipped(net, opt, run):
    for i in range(len(run.inputs)):
        (loss,) = run.losses(net, i)
        if i % 5 == 3:
            continue
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        opt.step()
    return net


def by_grad(net, opt, run):
    parameters = [*net.parameters()]
    for i in range(len(run.inputs)):
        grads = torch.autograd.grad(run.losses(net, i)[0], parameters, allow_unused=True)
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
        opt.step()
    return net


def backward_twice(net, opt, run):
    for i in range(len(run.inputs)):
        opt.zero_grad()
        (loss,) = run.losses(net, i)
        loss.backward(retain_graph=True)
        loss.backward()
        opt.step()
    return net


def frozen_and_hooked(net, opt, run):
    """Freeze the first parameter and halve the gradient of the second one."""
    first, second, *_ = net.parameters()
    first.requires_grad_(False)
    second.register_hook(lambda grad: grad / 2)
    return plain(net, opt, run)


def autocast(net, opt, run):
    for i in range(len(run.inputs)):
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            (loss,) = run.losses(net, i)
        loss.backward()
        opt.step()
    return net


def evaluated_between(net, opt, run):
    for i in range(len(run.inputs)):
        plain(net, opt, run.part(i, i + 1))
        if i % 3 == 1:
            net.eval()
            run.losses(net, i)
            net.train()
        with torch.no_grad():
            run.losses(net, i)
    return net


def lambda_set(net, opt, run):
    quarter = len(run.inputs) // 4
    for i, share in enumerate((0.0, 1.0, 0.25, 0.0)):
        net.bp_lambda = share
        plain(net, opt, run.part(quarter * i, quarter * (i + 1)))
    return net


def _moved_to(how):
    def loop(net, opt, run):
        half = len(run.inputs) // 2
        plain(net, opt, run.part(0, half))
        moved = how(net)
        groups = opt.param_groups[0]
        fresh = torch.optim.SGD(moved.parameters(), lr=groups["lr"], momentum=groups["momentum"])
        return plain(moved, fresh, run.part(half, 2 * half))

    return loop


copied = _moved_to(copy.deepcopy)
pickled = _moved_to(lambda net: pickle.loads(pickle.dumps(net)))


def double_and_back(net, opt, run):
    half = len(run.inputs) // 2
    plain(net, opt, run.part(0, half))
    net.double().float()
    return plain(net, opt, run.part(half, 2 * half))


def unwrapped(net, opt, run):
    half = len(run.inputs) // 2
    plain(net, opt, run.part(0, half))
    plain(net.unwrap(), opt, run.part(half, 2 * half))
    return net
