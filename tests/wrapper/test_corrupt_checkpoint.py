"""A corrupt checkpoint is refused by one error, and nothing has changed."""

import copy
import functools
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytorch_dni import CheckpointError, DNI, Linear_DNI, RNN_DNI, SynthesizerError
from tests.support.checkpoints import assert_same_state, cloned, structure, with_structure
from tests.support.recurrent_zoo import trained_on_windows
from tests.support.wrapped import Run


def in_space(**options):
    run = Run(**options)
    run.train(0, 3)
    return run.net


MAKE = {
    "labels": in_space,
    "update": functools.partial(in_space, dni_network=Linear_DNI),
    "feedback": functools.partial(in_space, context_size=None),
    "recurrent": functools.partial(in_space, dni_network=RNN_DNI, hidden_size=5),
    "full": functools.partial(in_space, unlock="full"),
    "windows": trained_on_windows,
}
NONSENSE = {
    "none": None,
    "text": "nonsense",
    "number": -1,
    "objects": [object()],
    "bool": torch.tensor(True),
    "int": torch.tensor(-(2**40)),
    "nan": torch.tensor(torch.nan, dtype=torch.float64),
    "complex": torch.ones(3, dtype=torch.complex64),
    "empty": torch.zeros(0),
    "large": torch.ones(2, 3, 4, 5),
    "bytes": torch.tensor([*b"nonsense"], dtype=torch.uint8),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.ones(3, device="meta"),
}


def load(net, state, before, strict=True):
    """Load a state; return whether it was refused. What was loaded is what was given."""
    try:
        net.load_state_dict(state, strict=strict)
    except CheckpointError:
        assert_same_state(before, net.state_dict())
        return True
    after = cloned(net.state_dict())
    net.load_state_dict(before)
    for key, value in state.items():
        if key in after and key != "_dni.structure":
            assert torch.equal(after[key].nan_to_num(), value.to(after[key]).nan_to_num()), key
    return False


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("turn", range(3))
def test_every_entry_replaced_by_nonsense_is_refused(make, turn):
    """Or it loads as it is, where it is of the same kind: it is another valid state."""
    net = make()
    saved = cloned(net.state_dict())
    values = [*NONSENSE.values()]
    refused = 0
    for i, key in enumerate(saved):
        refused += load(net, {**saved, key: values[(4 * turn + i) % len(values)]}, saved)
    assert refused > 0.9 * len(saved)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_missing_entry_is_refused(make):
    net = make()
    saved = cloned(net.state_dict())
    for key in [*saved][::2]:
        if key.endswith("num_batches_tracked"):
            continue  # PyTorch fills it in
        without = {k: v for k, v in saved.items() if k != key}
        assert load(net, without, saved), key
        if key.startswith("_dni."):
            assert load(net, without, saved, strict=False), key
    for key in ("elsewhere", "_dni.elsewhere", "network.elsewhere", "_dni.interfaces.0", 3):
        assert load(net, {**saved, key: torch.zeros(3)}, saved), key


def paths(value, path=()):
    """Return the path of every entry in a tree of dicts and lists."""
    found = [path] if path else []
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    return found + [p for key, child in children for p in paths(child, (*path, key))]


def replaced(tree, path, value):
    """Return a copy of a tree with another value at a path."""
    tree = copy.deepcopy(tree)
    *before, last = path
    place = tree
    for key in before:
        place = place[key]
    place[last] = value
    return tree


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_place_of_the_structure_replaced_is_refused_or_loads(make):
    """What it does not refuse is a state in itself: texts that the library does not use."""
    net = make()
    saved = cloned(net.state_dict())
    kept = structure(saved)
    values = [None, "nonsense", -1, [], ["list"], {}, ["fixed", 7]]
    refused, places = 0, paths(kept)[::4]
    for i, path in enumerate(places):
        state = with_structure(saved, replaced(kept, path, values[i % len(values)]))
        refused += load(net, state, saved)
    assert refused > 0.9 * len(places)


@pytest.mark.parametrize("dtype", ["nonsense", "nn", "Tensor", "", 3, None])
def test_a_corrupt_tensor_type_is_a_checkpoint_error(dtype):
    net = in_space()
    state = net.state_dict()
    changed = structure(state)
    name = next(iter(changed["interfaces"]))
    changed["interfaces"][name]["spec"]["dtype"] = dtype
    if dtype == 3:
        changed["interfaces"][name]["spec"]["dtype"] = ["fixed", dtype]
    with pytest.raises(CheckpointError, match="tensor type"):
        net.load_state_dict(with_structure(state, changed))


OPTIMIZERS = {
    "adam": "adam",
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("optim", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizer_tensors_of_another_shape_are_refused_though_the_structure_agrees(optim):
    net = in_space(grad_optim=optim)
    saved = cloned(net.state_dict())
    start = "_dni.learner.optimizer."
    checked = 0
    for key in saved:
        if not key.startswith(start + "state."):
            continue
        index, entry = key.removeprefix(start + "state.").split(".")
        for value in (torch.ones(7), torch.ones(saved[key].shape, dtype=torch.int64)):
            changed = structure(saved)
            place = changed["learner"]["optimizer"]["state"][index]
            dtype = str(value.dtype).removeprefix("torch.")
            place[entry] = ["tensor", dtype, [*value.shape]]
            assert load(net, with_structure({**saved, key: value}, changed), saved), key
            checked += 1
    assert checked


@pytest.mark.parametrize("option", ["lr", "betas", "eps", "amsgrad"])
def test_options_of_the_optimizer_of_another_kind_are_refused(option):
    net = in_space()
    saved = cloned(net.state_dict())
    changed = structure(saved)
    changed["learner"]["optimizer"]["groups"][1][option] = "nonsense"
    state = {k: v for k, v in saved.items() if f"groups.0.{option}" not in k}
    with pytest.raises(CheckpointError, match=option):
        net.load_state_dict(with_structure(state, changed))


@pytest.mark.parametrize("found", [-1, 0, 1, 3])
def test_a_checkpoint_of_another_format_is_refused(found):
    net = in_space()
    state = net.state_dict()
    with pytest.raises(CheckpointError, match="format"):
        net.load_state_dict({**state, "_dni.format": torch.tensor(found)})
    network = {k: v for k, v in state.items() if k.startswith("network.")}
    for strict in (True, False):
        with pytest.raises(CheckpointError, match="format"):
            net.load_state_dict({**network, "_extra_state": {"format": 1}}, strict=strict)


def test_a_defect_of_a_synthesizer_is_not_reported_as_a_wrong_checkpoint():
    class Broken(Linear_DNI):
        built = 0

        def __init__(self, *sizes):
            super().__init__(*sizes)
            Broken.built += 1
            if Broken.built > 1:
                raise LookupError("a defect")

    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), dni_network=Broken)
    net(torch.randn(2, 3)).sum().backward()
    with pytest.raises(SynthesizerError, match=r"Broken for '1'.*LookupError: a defect"):
        net.load_state_dict(net.state_dict())


def random_value(draw, value):
    kind = draw(st.sampled_from(["nonsense", "shape", "type", "values", "share"]))
    if kind == "nonsense":
        return draw(st.sampled_from([*NONSENSE.values()]))
    if kind == "shape":
        return torch.zeros(draw(st.lists(st.integers(0, 3), max_size=3)), dtype=value.dtype)
    if kind == "type":
        return value.to(draw(st.sampled_from([torch.half, torch.int32, torch.bool, torch.double])))
    if kind == "share":
        return value.new_zeros(()).expand(value.shape)
    flat = value.clone().reshape(-1)
    if flat.numel():
        place = draw(st.integers(0, flat.numel() - 1))
        flat[place] = draw(st.integers(0, 120))
    return flat.reshape(value.shape)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_random_changes_of_entries_are_refused_or_load_as_they_are(make):
    net = make()
    saved = cloned(net.state_dict())
    names = list(saved)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def check(data):
        state = dict(saved)
        for _ in range(data.draw(st.integers(1, 3))):
            key = data.draw(st.sampled_from(names))
            what = data.draw(st.sampled_from(["remove", "rename", "swap", "replace"]))
            value = state.pop(key, saved[key])
            if what == "rename":
                state[key + "x"] = value
            elif what == "swap":
                state[key] = saved[data.draw(st.sampled_from(names))]
            elif what == "replace":
                state[key] = random_value(data.draw, value)
        load(net, state, saved, strict=data.draw(st.booleans()))

    check()


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_damaged_file_is_refused_or_loads_as_it_is(make):
    """Where PyTorch reads the damaged file, the wrapper refuses it or has the state in it."""
    net = make()
    saved = cloned(net.state_dict())
    file = io.BytesIO()
    torch.save(saved, file)
    whole = file.getvalue()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def check(data):
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 3))):
            damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        if data.draw(st.booleans()):
            del damaged[data.draw(st.integers(0, len(whole))) :]
        try:
            state = torch.load(io.BytesIO(bytes(damaged)), weights_only=True)
        except Exception:  # PyTorch's own errors about a file are of many kinds
            return
        if isinstance(state, dict):
            load(net, state, saved)

    check()
