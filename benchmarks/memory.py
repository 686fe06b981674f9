"""Memory and time over depth: eager learning against backpropagation and checkpointing."""

from __future__ import annotations

from typing import Any

import torch

from . import deep, live, measure

DEPTHS = (8, 16, 32, 64)
_MEASURED = 9  # steps: figures for stats() are taken in one of eight
_MIB = 2**20


def run(device: str, depths: tuple[int, ...] = DEPTHS, blocks: int = 5) -> tuple[str, Any]:
    """Peak bytes and step times of all ways, networks and depths, as a table and as figures."""
    header = ["network", "blocks", "way", "activations, MiB", "of bp", "with gradients, MiB",
              "ms / step", "of bp", "range"]  # fmt: skip
    rows, figures = [], []
    for name, kind in deep.KINDS.items():
        for depth in depths:
            # One after the other: none is to be there while another is measured.
            found = {way: _peaks(kind, depth, way, device) for way in deep.WAYS}
            made = {way: deep.contestant(kind, depth, way, device) for way in deep.WAYS}
            steps = {way: one.step for way, one in made.items()}
            times = measure.steps(steps, blocks, length=3, warm_up=1)
            least = found["backpropagation"][0]
            for way, (alone, together) in found.items():
                t = times[way]
                rows.append(
                    [name, str(depth), way, f"{alone / _MIB:.2f}", f"{alone / least:.3f}",
                     f"{together / _MIB:.1f}", f"{t.milliseconds:.1f}", f"{t.ratio:.2f}",
                     f"{t.low:.2f} to {t.high:.2f}"]
                )  # fmt: skip
                figures.append(
                    {"network": name, "blocks": depth, "way": way, "activation_bytes": alone,
                     "bytes": together, **t._asdict()}
                )  # fmt: skip
    return measure.table(header, rows), figures


def _peaks(kind: deep.Kind, depth: int, way: str, device: str) -> tuple[int, int]:
    one = deep.contestant(kind, depth, way, device)
    optimizers = [*one.optimizers]
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(_MEASURED):
            one.step()
        # The allocator does not know gradients from activations.
        most = torch.cuda.max_memory_allocated(device) - before
        return most, most
    found = [
        live.peaks(one.step, one.network, one.synthesizers, optimizers) for _ in range(_MEASURED)
    ]
    return max(alone for alone, _ in found), max(together for _, together in found)
