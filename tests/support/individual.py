"""A slow reference for per-example gradients: one backward pass for each example."""

import torch

from pytorch_dni.individual import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradients,
)


def example(tree, number, dim=0):
    """Return one example of a tree of tensors, as a batch of one; other values stay."""
    if isinstance(tree, torch.Tensor):
        return tree.narrow(dim, number, 1)
    if isinstance(tree, (tuple, list)):
        return type(tree)(example(child, number, dim) for child in tree)
    return tree


def loop(network, loss_of_example, batch):
    """Return the gradients ``(batch, *shape)`` of each example's own loss, by parameter."""
    found = {}
    for number in range(batch):
        network.zero_grad()
        loss_of_example(number).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found.setdefault(name, {})[number] = parameter.grad.to_dense().clone()
    network.zero_grad()
    zeros = {name: torch.zeros_like(next(iter(own.values()))) for name, own in found.items()}
    return {
        name: torch.stack([own.get(number, zeros[name]) for number in range(batch)])
        for name, own in found.items()
    }


def matrix(gradients):
    """Return all gradients of each example in one row."""
    return torch.cat([gradient.reshape(len(gradient), -1) for gradient in gradients.values()], 1)


def check_equal(network, loss, loss_of_example, batch, reduction="sum", **options):
    """Compare gradients, norms and inner products with those of the loop, and ``grad`` too.

    Args:
        network: The network, in float64.
        loss: Returns the loss of the batch.
        loss_of_example: Returns the loss of the example of a number.
        batch: Number of examples.
        reduction: Of the loss over the batch.
        options: Further options of the contexts.
    """
    expected = loop(network, loss_of_example, batch)
    options = {"reduction": reduction, **options}
    loss().backward()
    summed = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for grad in (True, False):
        network.zero_grad()
        with individual_gradients(network, grad=grad, **options) as gradients:
            loss().backward()
        assert {*gradients} == {*expected}
        for name in expected:
            torch.testing.assert_close(gradients[name], expected[name], msg=name)
        grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        assert {*grads} == ({*summed} if grad else set())
        for name in grads:
            torch.testing.assert_close(grads[name].to_dense(), summed[name].to_dense())
        with individual_gradient_norms(network, grad=grad, **options) as norms:
            loss().backward()
        with individual_gradient_dots(network, grad=grad, **options) as dots:
            loss().backward()
        for name in expected:
            rows = expected[name].reshape(batch, -1)
            torch.testing.assert_close(norms[name], rows.norm(dim=1), atol=1e-7, rtol=1e-6)
            torch.testing.assert_close(dots[name], rows @ rows.T)
        rows = matrix(expected)
        torch.testing.assert_close(norms.total, rows.norm(dim=1), atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(dots.total, rows @ rows.T)
    network.zero_grad()


def check_layer(network, inputs, reduction="sum", dim=0, outputs=None, **options):
    """Compare a network whose inputs have the examples in one dimension with the loop.

    Args:
        network: The network, in float64; it returns a tensor, or a tree of them.
        inputs: Its inputs.
        reduction: Of the loss over the batch.
        dim: The dimension of examples.
        outputs: Picks the tensors of the output that the loss depends on; None takes all.
        options: Further options of the contexts.
    """
    first = inputs[0]
    batch = first.shape[dim]

    def losses(examples, numbers):
        output = network(*examples)
        tensors = [output] if isinstance(output, torch.Tensor) else [*flat(output)]
        total = 0
        for place, tensor in enumerate(outputs(tensors) if outputs else tensors):
            generator = torch.Generator().manual_seed(place)
            shape = [*tensor.shape]
            shape[dim] = batch
            weights = torch.randn(shape, generator=generator, dtype=tensor.dtype)
            weights = weights.index_select(dim, torch.tensor(numbers))
            product = weights * tensor + (weights * tensor).square()
            total = total + product.movedim(dim, 0).flatten(1).sum(1)
        return total

    def loss():
        found = losses(inputs, [*range(batch)])
        return found.sum() if reduction == "sum" else found.mean()

    def loss_of_example(number):
        return losses(example(inputs, number, dim), [number]).sum()

    check_equal(network, loss, loss_of_example, batch, reduction, **options)


def flat(tree):
    """Return the tensors of nested tuples."""
    for child in tree:
        if isinstance(child, torch.Tensor):
            yield child
        elif child is not None:
            yield from flat(child)
