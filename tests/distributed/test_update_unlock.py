"""The update unlock: synthetic gradients at once, and lessons for the batch they belong to."""

import copy
from collections import deque

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    DNIError,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    synthesizer_context,
)
from pytorch_dni.distributed import Stage
from tests.support.pipeline import batches, run_ranks


def make_parts():
    torch.manual_seed(1)
    return [
        nn.Sequential(nn.Linear(6, 8), nn.Tanh()),
        nn.Sequential(nn.Linear(8, 8), nn.Tanh()),
        nn.Linear(8, 3),
    ]


def make_synthesizers(classes=None):
    torch.manual_seed(2)
    return [BasicSynthesizer(8, n_hidden=1, context_dim=classes) for _ in range(2)]


def train(parts, data, calls=1, **options):
    """Train parts in a pipeline, and return the stages."""

    def work(connection):
        part = parts[connection.rank]
        own = {name: value[connection.rank] for name, value in options.items() if name == "each"}
        stage = Stage(
            part,
            torch.optim.SGD(part.parameters(), lr=0.1),
            loss=F.cross_entropy,
            example=data[0],
            connection=connection,
            **{name: value for name, value in options.items() if name != "each"},
            **own.get("each", {}),
        )
        reports = [stage.train(data) for _ in range(calls)]
        stage.close()
        return stage, reports

    return run_ranks(len(parts), work)


def reference(parts, synthesizers, data, lag, classes):
    """The same in one process: each part learns, and true gradients come ``lag`` batches late."""
    interfaces = [BackwardInterface(synthesizer) for synthesizer in synthesizers]
    opts = [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]
    late = [deque() for _ in interfaces]

    def learn(queue, interface):
        trigger, gradient, labels = queue.popleft()
        with synthesizer_context(labels if classes else None):
            interface.send(gradient, trigger)

    for x, y in data:
        for i, (part, opt) in enumerate(zip(parts, opts, strict=True)):
            x = x.detach().requires_grad_(i > 0)
            output = part(x)
            opt.zero_grad()
            if i < len(interfaces):
                if len(late[i]) == lag:
                    learn(late[i], interfaces[i])
                with synthesizer_context(y if classes else None):
                    gradient = interfaces[i].receive(output)
                output.backward(gradient)
            else:
                F.cross_entropy(output, y).backward()
            opt.step()
            if i > 0:
                late[i - 1].append((x.detach(), x.grad, y))
                # It comes while the part before runs its next batch at the earliest.
            x = output
        # The gradient of this batch is in the queue of each interface now.
        for queue in late:
            assert len(queue) <= lag
    for queue, interface in zip(late, interfaces, strict=True):
        while queue:
            learn(queue, interface)
    return interfaces


@pytest.mark.parametrize("lag", [1, 2, 3])
@pytest.mark.parametrize("classes", [None, 3])
def test_it_equals_the_same_in_one_process(lag, classes):
    data = batches(7, 8, 6, 3, last=3)
    parts, made = make_parts(), make_synthesizers(classes)
    alone, theirs = copy.deepcopy(parts), copy.deepcopy(made)
    interfaces = reference(alone, theirs, data, lag, classes)
    found = train(parts, data, each=[{"synthesizer": s} for s in [*made, None]], max_in_flight=lag)
    for ours, other in zip(parts, alone, strict=True):
        for a, b in zip(ours.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    for (stage, _), interface in zip(found, interfaces, strict=False):
        (own,) = stage.cut.interfaces.values()
        assert own.stats() == interface.stats()
        for a, b in zip(own.weights, interface.weights, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("kind", [Linear_DNI, LocalError_DNI, LocalLoss_DNI])
def test_runs_with_one_seed_are_equal_and_learn(kind, lag):
    data = batches(30, 16, 6, 3)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        parts = make_parts()
        options = {"synthesizer": kind, "context_size": 3, "max_in_flight": lag}
        found = train(parts, data, calls=2, **options)
        runs.append([p for part in parts for p in part.parameters()])
        first, second = found[0][1]
        assert second.loss < first.loss - 0.05
        assert second.refused == [0, 0, 0]
    assert all(map(torch.equal, *runs))


def test_local_losses_need_no_gradient_from_the_next_part():
    options = {"synthesizer": LocalLoss_DNI, "context_size": 3}
    found = train(make_parts(), batches(3, 8, 6, 3), **options)
    for stage, _ in found:
        assert not stage._links.gets_gradients
        assert not stage._runner.needs_input_gradients
    assert found[0][0].stats()["interface 'part 0'"].updates == 0


def test_a_batch_larger_than_the_example_is_refused_by_name():
    data = batches(2, 4, 6, 3)
    larger = batches(1, 5, 6, 3)

    def work(connection):
        part = make_parts()[connection.rank]
        opt = torch.optim.SGD(part.parameters(), lr=0.1)
        options = {"loss": F.cross_entropy, "example": data[0], "timeout": 1.0}
        Stage(part, opt, connection=connection, **options).train([*data, *larger])

    with pytest.raises(DNIError, match=r"part 0 sends to part 1, tensor 0: .5, 8.*the larg"):
        run_ranks(3, work)
