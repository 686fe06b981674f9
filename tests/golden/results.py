"""Collect the tensors of a case and compute what is recorded of them."""

import functools
import hashlib
import math
import platform
import warnings
from pathlib import Path

import torch

from pytorch_dni import BidirectionalInterface, DNIError

STEPS = 16  # The statistics sample steps 1 to 8 and then every eighth step.
GROUPS = 4


def seed(number):
    """Seed the generator of the CPU.

    ``torch.manual_seed`` also records the call stack for other devices, which takes time.
    """
    torch.default_generator.manual_seed(number)


def numbers(interfaces):
    """Return the statistics of interfaces as one tensor, with -1 in the place of NaN."""
    rows = [[s.loss, s.cosine, s.norm_ratio, s.updates] for s in (i.stats() for i in interfaces)]
    return torch.tensor(rows, dtype=torch.float64).nan_to_num(-1.0)


def directions(interface):
    """Return the two halves of a bidirectional interface, or the interface itself."""
    if isinstance(interface, BidirectionalInterface):
        return [interface.forward_interface, interface.backward_interface]
    return [interface]


def of_interfaces(*interfaces):
    """Return the parameters, buffers and statistics of synthesizers."""
    single = [one for interface in interfaces for one in directions(interface)]
    modules = [one.synthesizer for one in single]
    modules += [one.auxiliary for one in single if getattr(one, "auxiliary", None) is not None]
    found = [t for module in modules for t in module.state_dict().values()]
    return [*found, numbers(single)]


def of_wrapper(net):
    """Return the parameters and buffers of a network and of its synthesizers, and the statistics.

    The last tensor holds the next random numbers. They change if more or fewer numbers are drawn.
    """
    interfaces = [net.interfaces[name] for name in sorted(net.interfaces)]
    found = [*net.network.state_dict().values(), *of_interfaces(*interfaces)]
    return [*found, torch.rand(2, dtype=torch.float64)]


def digest(found):
    """Return the SHA-256 over shapes, types and raw bytes of all tensors."""
    hashed = hashlib.sha256()
    for t in found:
        hashed.update(f"{tuple(t.shape)} {t.dtype}".encode())
        hashed.update(t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def summary(found):
    """Divide the tensors into groups; return the sum and the sum of squares of each group."""
    sums = []
    for g in range(GROUPS):
        group = found[g * len(found) // GROUPS : (g + 1) * len(found) // GROUPS]
        flat = torch.cat([torch.zeros(1), *(t.detach().double().flatten() for t in group)])
        sums += [flat.sum().item(), flat.square().sum().item()]
    assert all(math.isfinite(number) for number in sums), "the case computes no finite numbers"
    return [float(f"{number:.9g}") for number in sums]


def result(case):
    """Run a case and return what is recorded of it."""
    seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = case()
    except DNIError as error:
        return {"error": type(error).__name__}
    return {"digest": digest(found), "summary": summary(found)}


@functools.cache
def processor():
    """Return the processor's name, family, model and stepping, or an empty string."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    lines = [line.partition(":") for line in path.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    return " ".join(fields.get(k, "") for k in ("model name", "cpu family", "model", "stepping"))


def fingerprint():
    """Return the properties of this machine that rounding depends on."""
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": processor(),
    }
