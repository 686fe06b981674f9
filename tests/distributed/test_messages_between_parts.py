"""What parts may pass on, and what is refused: tuples, numbers that are not finite, differences."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNIError, Linear_DNI
from pytorch_dni.distributed import LostRankError, Stage
from tests.support.pipeline import batches, run_ranks


def stage(connection, part, example, **options):
    parameters = [*part.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1) if parameters else None
    options = {"loss": F.cross_entropy, "timeout": 5.0, **options}
    return Stage(part, optimizer, example=example, connection=connection, **options)


class Several(nn.Module):
    """Returns two activations, of which the next part uses one, labels, and a constant."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(6, 8), nn.Linear(6, 4)

    def forward(self, x):
        return self.used(x), self.unused(x), x.argmax(1), torch.ones(2)


class Uses(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, used, unused, index, constant):
        assert index.dtype == torch.int64
        return self.layer(used) * constant[0]


@pytest.mark.parametrize("unlock", ["locked", "update"])
def test_a_part_may_return_several_tensors_some_of_which_are_not_used(unlock):
    data = batches(4, 8, 6, 3, last=2)

    def work(connection):
        torch.manual_seed(connection.rank)
        part = Several() if connection.rank == 0 else Uses()
        before = [p.detach().clone() for p in part.parameters()]
        made = stage(connection, part, data[0], unlock=unlock, synthesizer=Linear_DNI)
        for _ in range(2):
            made.train(data)
        made.close()
        pairs = zip(before, part.parameters(), strict=True)
        return [not torch.equal(old, new) for old, new in pairs], made

    (first, made), (second, _) = run_ranks(2, work)
    assert all(second)
    assert first == [True, True, False, False]
    if unlock == "update":
        assert [*made.stats()] == ["interface 'part 0'", "interface 'part 0, output 1'"]
        assert [stats.updates for stats in made.stats().values()] == [8, 0]


@pytest.mark.parametrize("unlock", ["locked", "update"])
@pytest.mark.parametrize("place", ["input", "first", "middle", "last"])
def test_numbers_that_are_not_finite_are_refused_and_counted(unlock, place):
    data = batches(6, 8, 6, 3)
    layers = [[nn.Linear(6, 8), nn.BatchNorm1d(8)], [nn.Linear(8, 8)], [nn.Linear(8, 3)]]
    bad = {1, 4}
    if place == "input":
        for number in bad:
            data[number][0][0, 0] = math.nan
    spoiled = {"first": 0, "middle": 1, "last": 2}.get(place)

    class SpoiledAt(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.count = inner, 0

        def forward(self, x):
            self.count += self.training and torch.is_grad_enabled()
            factor = math.nan if self.count - 2 in bad else 1.0
            return self.inner(x) * factor

    def work(connection):
        torch.manual_seed(connection.rank)
        part = nn.Sequential(*layers[connection.rank])
        if connection.rank == spoiled:
            part = SpoiledAt(part)
        made = stage(connection, part, data[0], unlock=unlock, synthesizer=Linear_DNI)
        report = made.train(data)
        made.close()
        assert all(bool(p.isfinite().all()) for p in part.state_dict().values())
        return report

    report = run_ranks(3, work)[0]
    assert math.isfinite(report.loss)
    first = 0 if spoiled is None else spoiled
    if unlock == "update":
        assert report.refused == [0] * first + [2] * (3 - first)
    else:
        assert report.refused == [2, 2, 2]


@pytest.mark.parametrize(
    ("option", "values", "named"),
    [
        ("max_in_flight", (2, 3), "max_in_flight is 2 on rank 0 and 3 on rank 1"),
        ("unlock", ("update", "locked"), "unlock is 'update' on rank 0 and 'locked' on rank 1"),
        ("context_size", (3, None), "context_size is 3 on rank 0 and None on rank 1"),
    ],
)
def test_ranks_that_differ_are_refused_everywhere_by_the_difference(option, values, named):
    messages = []

    def work(connection):
        part = nn.Linear(6, 6)
        with pytest.raises(DNIError) as refused:
            stage(connection, part, batches(1, 4, 6, 3)[0], **{option: values[connection.rank]})
        messages.append(str(refused.value))

    run_ranks(2, work)
    assert len(messages) == 2
    assert all(named in message for message in messages)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (nn.Linear(7, 3), r"part 1 \(Linear\) cannot process the example, \(4, 8\) in torch.f"),
        (nn.Linear(8, 3).double(), "part 1 .*Float and Double"),
        (nn.LSTM(8, 3), "must be a tensor, or a tuple or list of tensors"),
    ],
)
def test_parts_that_do_not_follow_one_another_are_refused_everywhere(second, named):
    messages = []

    def work(connection):
        part = [nn.Linear(6, 8), second, nn.Linear(3, 3)][connection.rank]
        with pytest.raises(DNIError, match=named) as refused:
            stage(connection, part, batches(1, 4, 6, 3)[0])
        messages.append(str(refused.value))

    run_ranks(3, work)
    assert len(set(messages)) == 1
    assert len(messages) == 3


def test_a_rank_that_ends_is_named_by_all_others():
    data = batches(9, 4, 6, 3)

    class EndError(Exception):
        pass

    def read():
        yield from data[:3]
        raise EndError

    messages = {}

    def work(connection):
        part = nn.Linear(6 if connection.rank == 0 else 8, 8)
        made = stage(connection, part, data[0], timeout=0.3)
        try:
            made.train(read())
        except LostRankError as error:
            messages[connection.rank] = str(error)

    with pytest.raises(EndError):
        run_ranks(4, work)
    assert [*sorted(messages)] == [1, 2, 3]
    assert all("rank 0 is lost" in message for message in messages.values()), messages


@pytest.mark.parametrize("wrong", [{"unlock": "other"}, {"max_in_flight": 0}, {"timeout": -1}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(DNIError, match=next(iter(wrong))):
        run_ranks(2, lambda c: stage(c, nn.Linear(6, 6), batches(1, 4, 6, 3)[0], **wrong))


def test_a_stage_needs_a_process_group():
    with pytest.raises(DNIError, match="init_process_group"):
        Stage(nn.Linear(2, 2), None)


def test_messages_of_stages_that_are_there_at_once_are_kept_apart():
    data = batches(4, 8, 6, 3)

    def work(connection):
        torch.manual_seed(connection.rank)
        options = [{"unlock": "locked"}, {"max_in_flight": 3}]
        own = [nn.Linear(6, 8) if connection.rank == 0 else nn.Linear(8, 3) for _ in options]
        made = [stage(connection, p, data[0], **o) for p, o in zip(own, options, strict=True)]
        found = [s.train(data).batches for _ in range(2) for s in made]
        for one in made:
            one.close()
        return found

    assert run_ranks(2, work) == [[4, 4, 4, 4]] * 2
