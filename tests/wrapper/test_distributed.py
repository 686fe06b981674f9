"""DistributedDataParallel, inside and around the wrapper."""

import copy
import gc
import os

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from pytorch_dni import DNI


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def loss(output):
    return output.square().mean()


def work(rank, folder):
    # The processes communicate over the loopback interface alone.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for number, case in enumerate(CASES):
        torch.save(train(rank, **case), f"{folder}/{number}-{rank}")
    # A rank may abort if it ends while the other one still communicates, or while it holds the
    # group.
    gc.collect()
    distributed.barrier()
    distributed.destroy_process_group()


def train(rank, inside, options, search=False):
    bare = network()
    if inside:
        net = DNI(DistributedDataParallel(bare, find_unused_parameters=search), **options)
    else:
        net = DistributedDataParallel(DNI(bare, **options), find_unused_parameters=search)
    opt = torch.optim.SGD(bare.parameters(), lr=0.1)
    for step in range(4):
        opt.zero_grad()
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        loss(net(x[rank::2])).backward()
        opt.step()
    interfaces = (net if inside else net.module).interfaces
    return {"parameters": list(bare.parameters()), "cuts": list(interfaces)}


OPTIONS = [
    {"unlock": "update"},
    {"unlock": "backward"},
    {"unlock": "backward", "exact_every": 2},
    {"bp_lambda": 1.0},
    {"eager": True},
]


# All in one pair of processes, since starting them takes most of the time.
CASES = [
    *({"inside": inside, "options": options} for options in OPTIONS for inside in (True, False)),
    *(
        {"inside": True, "options": options, "search": True}
        for options in ({"eager": True}, {"exact_every": 2}, {"unlock": "update"})
    ),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what the two ranks found in each case."""
    if not distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [
        [torch.load(folder / f"{number}-{rank}", weights_only=True) for rank in (0, 1)]
        for number in range(len(CASES))
    ]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_ranks_keep_equal_parameters(number, results):
    options = CASES[number]["options"]
    first, second = results[number]
    assert [name.removeprefix("module.") for name in first["cuts"]] == ["1", "3"]
    for a, b in zip(first["parameters"], second["parameters"], strict=True):
        assert torch.equal(a, b)
    alone = network()
    initial = copy.deepcopy(alone)
    opt = torch.optim.SGD(alone.parameters(), lr=0.1)
    for step in range(4):
        opt.zero_grad()
        loss(alone(torch.randn(8, 6, generator=torch.Generator().manual_seed(step)))).backward()
        opt.step()
    for a, b, c in zip(first["parameters"], alone.parameters(), initial.parameters(), strict=True):
        assert not torch.equal(a, c)
        if options.get("bp_lambda") == 1:
            torch.testing.assert_close(a, b)
