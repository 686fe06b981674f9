"""Gradients of interfaces pass ``torch.autograd.gradcheck``."""

import torch
from torch import nn

from pytorch_dni import BackwardInterface, BasicSynthesizer
from tests.support.primitives import assert_close, double, synthesizer


class ExactGradient(nn.Module):
    """Returns the gradient of L = sum(h^2) / 2 with respect to h."""

    normalize_target = False

    def forward(self, trigger, context):
        return trigger


class HalfSquaredSum(torch.autograd.Function):
    """L = sum(h^2) / 2, whose gradient is the one that ``cut.backward`` sends into the graph."""

    @staticmethod
    def forward(ctx, h, cut):
        ctx.cut = cut
        ctx.save_for_backward(h)
        return h.square().sum() / 2

    @staticmethod
    def backward(ctx, grad):
        leaf = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.cut.backward(leaf.clone(), factor=grad.item())
        return leaf.grad, None


def test_an_exact_synthesizer_passes_gradcheck():
    cut = BackwardInterface(ExactGradient(), like=double(1))
    w = double(3, 4)

    def loss(x):
        return HalfSquaredSum.apply(torch.tanh(x @ w), cut)

    assert torch.autograd.gradcheck(loss, double(5, 3).requires_grad_())
    x = double(5, 3).requires_grad_()
    (expected,) = torch.autograd.grad(torch.tanh(x @ w).square().sum() / 2, x)
    (found,) = torch.autograd.grad(cut(torch.tanh(x @ w)).square().sum() / 2, x)
    assert_close(found, expected)
    # The synthetic gradient replaces the true one, whatever the loss is.
    (found,) = torch.autograd.grad(cut(torch.tanh(x @ w)).exp().sum(), x)
    assert_close(found, expected)


def test_evaluation_and_the_synthesizer_itself_pass_gradcheck():
    cut = BackwardInterface(synthesizer(4, 4)).eval()
    assert torch.autograd.gradcheck(cut, double(5, 4).requires_grad_())
    basic = BasicSynthesizer(3, 2, 6, 4, 2).double()
    nn.init.normal_(basic.layers.last.weight)
    inputs = (double(5, 4).requires_grad_(), double(5, 2).requires_grad_())
    assert torch.autograd.gradcheck(basic, inputs)
