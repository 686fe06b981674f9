"""The state of a wrapper is made of tensors that every tool for checkpoints can save and load."""

import copy
import io

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    CheckpointError,
    DNI,
    Linear_DNI,
    RNN_DNI,
)
from tests.support.checkpoints import assert_same_state, cloned, through_file
from tests.support.recurrent_zoo import trained_on_windows
from tests.support.wrapped import assert_equal, classifier, Run


def trained(**options):
    run = Run(**options)
    run.train(0, 12)
    return run.net


KINDS = {
    "labels": {},
    "feedback": {"context_size": None},
    "update": {"dni_network": Linear_DNI},
    "full": {"unlock": "full"},
    "sparse": {"update_probability": 0.5},
    "eager": {"eager": True, "context_size": None, "unlock": "update"},
    "momentum": {"grad_optim": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)},
    "plain sgd": {"grad_optim": "sgd"},
    "adagrad": {"grad_optim": torch.optim.Adagrad},
}


def assert_separate_tensors(state):
    storages = set()
    for key, value in state.items():
        assert type(value) is torch.Tensor, key
        assert value.is_contiguous(), key
        assert not value.requires_grad, key
        place = value.untyped_storage().data_ptr()
        assert place not in storages, key
        storages.add(place)
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), key


@pytest.mark.parametrize("kind", [*KINDS, "recurrent", "windows", "fresh"])
def test_every_value_is_a_contiguous_tensor_by_itself(kind):
    if kind == "windows":
        net = trained_on_windows()
    elif kind == "recurrent":
        net = trained(dni_network=RNN_DNI, hidden_size=5)
    else:
        net = DNI(classifier()) if kind == "fresh" else trained(**KINDS[kind])
    assert_separate_tensors(net.state_dict())
    assert_same_state(net.state_dict(), net.state_dict())  # the same each time


def test_entries_of_a_tied_parameter_do_not_share_memory():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    network[2].weight = network[0].weight
    net = DNI(network)
    net(torch.randn(3, 4)).sum().backward()
    assert_separate_tensors(net.state_dict())
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.network[0].weight.zero_()
    other.load_state_dict(net.state_dict())
    assert other.network[0].weight is other.network[2].weight
    assert_same_state(net.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda: BackwardInterface(RNN_DNI(5, 7, 5)),
        lambda: BackwardInterface(Linear_DNI(5, 7, 5), optim=None),
        lambda: BidirectionalInterface(BasicSynthesizer(5, 1, trigger_dim=3), RNN_DNI(5, 7, 5)),
    ],
)
def test_the_state_of_an_interface_by_hand_is_made_of_tensors(make):
    one, other = make(), make()
    for _ in range(3):
        h = torch.randn(6, 5, requires_grad=True)
        both = isinstance(one, BidirectionalInterface)
        (one(h, torch.randn(6, 3)) if both else one(h)).square().sum().backward()
    assert_separate_tensors(one.state_dict())
    assert any("hidden" in key for key in one.state_dict()) == any(
        isinstance(m, RNN_DNI)
        for m in (one.backward_interface.synthesizer if both else one.synthesizer,)
    )
    other.load_state_dict(cloned(one.state_dict()))
    assert_same_state(one.state_dict(), other.state_dict())


def test_a_state_of_an_interface_that_does_not_fit_changes_nothing():
    def make():
        return BidirectionalInterface(BasicSynthesizer(5, trigger_dim=3), Linear_DNI(5, 7, 5))

    torch.manual_seed(0)
    one, other = make(), make()
    before, state = cloned(other.state_dict()), cloned(one.state_dict())
    wrong = {"moments.values": torch.zeros(7), "moments.updates": torch.tensor(-5)}
    for name, value in wrong.items():
        with pytest.raises(CheckpointError, match=r"moments|-5 is negative"):
            other.load_state_dict({**state, f"backward_interface._dni.{name}": value})
        assert_same_state(before, other.state_dict())
        # The same inside a network, where PyTorch loads one module after the other.
        network, key = nn.Sequential(other), f"0.backward_interface._dni.{name}"
        outer = {f"0.{k}": v for k, v in state.items() if "forward_interface" not in k}
        with pytest.raises(CheckpointError):
            network.load_state_dict({**outer, key: value}, strict=False)
        assert_same_state(before, other.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_through_clones_files_and_copies(kind):
    net = trained(**KINDS[kind])
    saved = net.state_dict()
    for state in (cloned(saved), copy.deepcopy(saved), through_file(saved), dict(saved)):
        other = Run(**KINDS[kind])
        found = other.net.load_state_dict(state)
        assert not found.missing_keys
        assert not found.unexpected_keys
        assert_same_state(saved, other.net.state_dict())


def test_what_is_loaded_does_not_change_with_the_tensors_that_it_was_loaded_from():
    net, other = trained(dni_network=RNN_DNI), Run(dni_network=RNN_DNI).net
    state = cloned(net.state_dict())
    other.load_state_dict(state)
    before = cloned(other.state_dict())
    for value in state.values():
        value.zero_()
    assert_same_state(before, other.state_dict())


def test_a_state_inside_another_modules_state_loads_strictly():
    net = trained()
    outer, other = nn.ModuleDict({"inner": net}), nn.ModuleDict({"inner": Run().net})
    found = other.load_state_dict(cloned(outer.state_dict()))
    assert not found.missing_keys
    assert not found.unexpected_keys
    assert_same_state(outer.state_dict(), other.state_dict())
    state = {k: v for k, v in outer.state_dict().items() if "_dni" not in k}
    with pytest.raises(RuntimeError, match=r"inner\._dni\.format"):
        other.load_state_dict(state)


def test_a_state_of_the_network_alone_is_named():
    net = trained()
    bare = classifier().state_dict()
    before = cloned(net.state_dict())
    with pytest.raises(CheckpointError, match=r"net\.network\.load_state_dict"):
        net.load_state_dict(bare)
    assert_same_state(before, net.state_dict())
    found = net.load_state_dict(bare, strict=False)
    assert set(found.unexpected_keys) == set(bare)
    net.network.load_state_dict(bare)
    for key, value in bare.items():
        assert torch.equal(net.state_dict()[f"network.{key}"], value)


def test_without_strict_the_network_loads_alone_and_synthesizers_stay():
    net, other = trained(), trained(grad_lr=0.5)
    own = [k for k in other.state_dict() if k.startswith("_dni.")]
    state = {k: v for k, v in net.state_dict().items() if k.startswith("network.")}
    before = cloned(other.state_dict())
    with pytest.raises(CheckpointError, match="Missing"):
        other.load_state_dict(state)
    assert_same_state(before, other.state_dict())
    found = other.load_state_dict(state, strict=False)
    assert set(found.missing_keys) == set(own)
    after = other.state_dict()
    assert all(torch.equal(after[key], net.state_dict()[key]) for key in state)
    assert all(torch.equal(after[key], before[key]) for key in own)


def test_a_failed_load_of_the_network_changes_nothing():
    """PyTorch alone would have loaded all entries but one."""
    net, other = trained(), trained(context_size=None)
    before = cloned(other.state_dict())
    longer = Run(context_size=None)
    longer.train(0, 20)
    for key in ("network.5.weight", "network.5.bias"):
        state = cloned(longer.net.state_dict())
        state[key] = torch.zeros(9)
        with pytest.raises(CheckpointError, match=key.removeprefix("network.")):
            other.load_state_dict(state)
        assert_same_state(before, other.state_dict())
    with pytest.raises(RuntimeError):  # it is one as well, as PyTorch's own
        other.load_state_dict(net.state_dict())
    assert_same_state(before, other.state_dict())


def test_a_state_in_half_precision_is_refused_unless_it_is_the_networks_alone():
    net, other = trained(), trained(context_size=None)
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    before = cloned(other.state_dict())
    with pytest.raises(CheckpointError, match="float16"):
        other.load_state_dict(half)
    assert_same_state(before, other.state_dict())
    own = {k: v for k, v in net.state_dict().items() if k.startswith("_dni.")}
    fresh = Run().net
    fresh.load_state_dict({**half, **own})
    assert fresh.stats() == net.stats()


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_the_same_before_the_first_step(kind):
    """Tools that load into the entries of a new wrapper find all of them."""
    net = trained(**KINDS[kind])
    run = Run(example_input=torch.randn(3, 6), **KINDS[kind])
    fresh = run.net.state_dict()
    assert [(k, v.shape, v.dtype) for k, v in fresh.items()] == [
        (k, v.shape, v.dtype) for k, v in net.state_dict().items()
    ]
    before = [p.clone() for p in run.tensors()]
    run.net.load_state_dict(cloned(fresh))
    assert_equal(before, run.tensors())
    again = Run(example_input=torch.randn(3, 6), **KINDS[kind])
    again.train(0, 3)
    run.train(0, 3)
    assert_equal(again.tensors(), run.tensors())


def test_saving_before_the_first_step_draws_no_random_numbers():
    net = Run(example_input=torch.randn(3, 6)).net
    before = torch.get_rng_state()
    net.state_dict()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_distributed_checkpoint_resumes_a_new_wrapper(kind, tmp_path):
    net = trained(**KINDS[kind])
    dcp.save(net.state_dict(), checkpoint_id=tmp_path)
    fresh = Run(example_input=torch.randn(3, 6), **KINDS[kind]).net
    state = fresh.state_dict()
    dcp.load(state, checkpoint_id=tmp_path)
    fresh.load_state_dict(state)
    assert_same_state(net.state_dict(), fresh.state_dict())
    # Without an example: by the entries that the checkpoint lists.
    reader = dcp.FileSystemReader(tmp_path)
    listed = reader.read_metadata().state_dict_metadata
    state = {k: torch.empty(m.size, dtype=m.properties.dtype) for k, m in listed.items()}
    dcp.load(state, storage_reader=reader)
    fresh = Run(**KINDS[kind]).net
    fresh.load_state_dict(state)
    assert_same_state(net.state_dict(), fresh.state_dict())


def test_the_state_functions_of_distributed_checkpoints_work():
    net, fresh = trained(), Run().net
    set_model_state_dict(fresh, get_model_state_dict(net))
    assert_same_state(net.state_dict(), fresh.state_dict())
    outer, other = nn.ModuleDict({"inner": net}), nn.ModuleDict({"inner": Run().net})
    set_model_state_dict(other, get_model_state_dict(outer))
    assert_same_state(outer.state_dict(), other.state_dict())


@pytest.mark.parametrize("placed", [False, True])
def test_running_means_of_states_can_be_made(placed):
    """Tools average the values of two state dicts in their order; the copy may be a fresh one."""
    run = Run(context_size=None)
    if placed:
        run.train(0, 2)
    mean = copy.deepcopy(run.net).eval()
    for step in range(5):
        run.train(step, step + 1)
        values = zip(mean.state_dict().values(), run.net.state_dict().values(), strict=placed)
        for old, new in values:
            if old.is_floating_point():
                old.lerp_(new, 0.5)
            else:
                old.copy_(new)
    assert torch.isfinite(mean(torch.randn(3, 6))).all()
    assert not torch.equal(mean.network[0].weight, run.network[0].weight)


def test_a_state_that_no_tensor_can_hold_is_an_error_that_names_it():
    class Keeps(Linear_DNI):
        def get_extra_state(self):
            return {"kept": object()}

        def set_extra_state(self, state):
            pass

    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), dni_network=Keeps)
    net(torch.randn(2, 3)).sum().backward()
    with pytest.raises(CheckpointError, match=r"_extra_state\.kept.*object"):
        net.state_dict()


def test_a_seed_of_64_bits_is_saved():
    torch.manual_seed(2**64 - 5)
    net = DNI(classifier(), update_probability=0.5)
    torch.manual_seed(1)
    other = DNI(classifier(), update_probability=0.5)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict()["_dni.seed"] == net.state_dict()["_dni.seed"] == -5
    names = [("0", step) for step in range(50)]
    schedules = [n._rooms.policy.schedule for n in (net, other)]
    drawn = [[s.part_learns(*name) for name in names] for s in schedules]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 2
