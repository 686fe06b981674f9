"""Threads that train one wrapper at once get a clear error; those that do not overlap train it."""

import threading

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError
from tests.support.zoo import mlp

OPTIONS = [{}, {"unlock": "update"}, {"exact_every": 2}, {"eager": True}]


def in_thread(work):
    """Run a function in another thread to its end; return its error, or None."""
    errors = []

    def run():
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors[0] if errors else None


def wrapped(options):
    network = mlp()
    return network, DNI(network, example_input=torch.randn(2, 6), **options)


def step(net):
    net(torch.randn(4, 6)).square().mean().backward()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_forward_pass_inside_of_that_of_another_thread_is_an_error(options):
    network, net = wrapped(options)
    errors = []

    def other_thread(*call):
        handle.remove()
        errors.append(in_thread(lambda: step(net)))

    handle = network[1].register_forward_hook(other_thread)
    step(net)
    assert isinstance(errors[0], DNIError)
    assert "two threads run training forward passes of Sequential" in str(errors[0])
    assert in_thread(lambda: step(net)) is None
    step(net)
    assert {stats.updates for stats in net.stats().values()} == (
        {2} if "exact_every" in options else {3}
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_backward_pass_inside_of_that_of_another_thread_is_an_error(options):
    network, net = wrapped(options)
    first, second = (net(torch.randn(4, 6)).square().mean() for _ in range(2))
    errors = []

    def other_thread(grad):
        handle.remove()
        errors.append(in_thread(second.backward))

    handle = next(network.parameters()).register_hook(other_thread)
    first.backward()
    assert isinstance(errors[0], DNIError)
    assert "two threads run backward passes" in str(errors[0])
    assert {stats.updates for stats in net.stats().values()} == {1}
    assert in_thread(lambda: step(net)) is None


def test_passes_without_gradients_may_run_in_threads():
    network, net = wrapped({})
    errors = []

    def other_thread(*call):
        handle.remove()
        with torch.no_grad():
            errors.append(in_thread(lambda: torch.no_grad()(net)(torch.randn(4, 6))))

    handle = network[1].register_forward_hook(other_thread)
    step(net)
    assert errors == [None]


def test_data_parallel_with_several_devices_is_an_error():
    network = nn.DataParallel(mlp())
    network.device_ids = [0, 1]
    with pytest.raises(DNIError, match=r"DataParallel.*take DistributedDataParallel"):
        DNI(network)
    DNI(nn.DataParallel(mlp()), layers="module.1")  # without devices it runs its network alone
