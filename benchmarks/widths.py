"""What synthesizers cost over the width of the network and of their own hidden layer."""

from __future__ import annotations

from typing import Any

from . import deep, measure

WIDTHS = (64, 128, 256, 512, 1024)
HIDDEN = (16, 64, 256)
_DEPTH, _BATCH = 8, 256


def run(
    device: str, widths: tuple[int, ...] = WIDTHS, blocks: int = 7
) -> tuple[str, list[dict[str, Any]]]:
    """Step times over backpropagation's, as a table and as figures."""
    header = ["width", "backpropagation, ms", *(f"eager, hidden {h}" for h in HIDDEN), "local"]
    rows, figures = [], []
    for width in widths:
        kinds = {f"eager, hidden {hidden}": deep.mlp(width, _BATCH, hidden) for hidden in HIDDEN}
        kind = deep.mlp(width, _BATCH, HIDDEN[0])
        bare = deep.contestant(kind, _DEPTH, "backpropagation", device).step
        steps = {"backpropagation": bare}
        for name, one in kinds.items():
            steps[name] = deep.contestant(one, _DEPTH, "eager", device).step
        steps["local"] = deep.contestant(kind, _DEPTH, "local", device).step
        times = measure.steps(steps, blocks, length=5, warm_up=1)
        first, *others = times.values()
        ratios = [f"{t.ratio:.2f} ({t.low:.2f} to {t.high:.2f})" for t in others]
        rows.append([str(width), f"{first.milliseconds:.2f}", *ratios])
        figures += [{"width": width, "way": way, **t._asdict()} for way, t in times.items()]
    return measure.table(header, rows), figures
