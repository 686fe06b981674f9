"""Train in several processes and in mixed precision, with ``DistributedDataParallel``.

Run it: ``torchrun --standalone --nproc-per-node 2 examples/ddp_mixed_precision.py``, or with
``python`` for one process. The processes talk over the loopback interface of this machine.
"""

from __future__ import annotations

import argparse
import os

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pytorch_dni import DNI

CLASSES, FEATURES = 5, 32


def main(steps: int) -> tuple[float, float]:
    """Train, print the first and the last losses on rank 0, and return them."""
    if "RANK" not in os.environ:  # one process, without torchrun
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()

    torch.manual_seed(0)  # the same weights everywhere
    means = torch.randn(CLASSES, FEATURES)
    network = nn.Sequential(
        nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    net = DNI(DistributedDataParallel(network), optim=optimizer)
    torch.manual_seed(1 + rank)  # other data in each process
    losses = []
    for _ in range(steps):
        labels = torch.randint(CLASSES, (32,))
        inputs = means[labels] + torch.randn(32, FEATURES)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    if rank == 0:
        print(f"{distributed.get_world_size()} processes: loss {first:.3f}, at the end {last:.3f}")
    distributed.barrier()
    distributed.destroy_process_group()
    return first, last


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="training steps in each process")
    main(parser.parse_args().steps)
