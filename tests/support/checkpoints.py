"""Ways to copy a module or a state."""

import copy
import io
import pickle

import torch


def through_file(state):
    """Save a state as a checkpoint would be, and load it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


COPIES = [copy.deepcopy, through_pickle]
