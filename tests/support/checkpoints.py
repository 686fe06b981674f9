"""Ways to copy a module or a state."""

import copy
import io
import json
import pickle

import torch


def through_file(state):
    """Save a state as a checkpoint would be, and load it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def structure(state, prefix="_dni."):
    """Return the structure of the entries of a state that are no parameters or buffers."""
    return json.loads(bytes(state[f"{prefix}structure"].tolist()))


def with_structure(state, changed, prefix="_dni."):
    """Return a state with another structure."""
    text = json.dumps(changed, separators=(",", ":")).encode()
    return {**state, f"{prefix}structure": torch.tensor([*text], dtype=torch.uint8)}


def cloned(state):
    return {key: value.clone() for key, value in state.items()}


def assert_same_state(a, b):
    """Compare two states: names, types, shapes and values to the bit."""
    assert list(a) == list(b)
    for key, value in a.items():
        assert value.dtype == b[key].dtype, key
        assert value.shape == b[key].shape, key
        assert torch.equal(value.nan_to_num(), b[key].nan_to_num()), key
        assert torch.equal(value.isnan(), b[key].isnan()), key


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


COPIES = [copy.deepcopy, through_pickle]
