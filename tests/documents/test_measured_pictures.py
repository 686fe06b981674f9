"""Pictures of the pages are those of the figures in their tables."""

import io
import json
import re
import statistics
from pathlib import Path

import matplotlib
import numpy
import pytest
from matplotlib import image

from benchmarks import training_methods
from docs import draw_measured

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"


def pinned(package):
    """Return the version of a package that the requirements name."""
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return found[1] if found else None


def test_all_figures_of_the_pages_are_found():
    memory = draw_measured.memory_figures()
    found = {(row["network"], row["blocks"], row["method"]) for row in memory}
    assert len(memory) == len(found) == 3 * 4 * len(training_methods.METHODS)
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in memory)
    windows = draw_measured.window_points()
    assert len(windows) == 4 * 4 * 3
    assert all(point.low <= point.mean <= point.high for point in windows)
    # A figure of the second table with these modes, of another network, is not among them.
    assert next(p for p in windows if p[:3] == ("copy", 3, "dni")).mean == 2.0


def test_stored_figures_of_pipelines_are_those_of_the_simulation_and_of_the_page():
    stored = draw_measured.pipeline_figures()
    few = draw_measured.simulate_pipelines((2, 8))
    assert stored[: len(few)] == few
    speeds = {(r["stages"], r["latency"], r["way"]): r["batches_per_second"] for r in stored}
    rows = draw_measured.table_rows("distributed.md", "| stages | latency | decoupled, batches/s |")
    assert len(rows) == 5
    for stages, latency, decoupled, _, *others in rows:
        seconds = float(latency.removesuffix(" ms")) / 1e3
        shown = zip(("decoupled", "GPipe", "1F1B"), (decoupled, *others), strict=True)
        for way, speed in shown:
            digits = len(speed.partition(".")[2])
            assert f"{speeds[int(stages), seconds, way]:.{digits}f}" == speed


def test_the_readme_has_the_last_results_of_the_picture_of_mnist():
    lines = (ROOT / "docs" / "figures" / "mnist.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    last = max(row["step"] for row in history)
    errors = {}
    for row in history:
        if row["step"] == last:
            errors.setdefault(row["label"], []).append(row["test_error"])
    assert len(errors) == 7
    rows = [line.split(" | ") for line in (ROOT / "README.md").read_text().splitlines()]
    table = {row[0].strip("| `"): row[2] for row in rows if len(row) == 4}
    for label, own in errors.items():
        assert table[label] == f"{100 - 100 * statistics.mean(own):.2f} %"


@pytest.mark.parametrize("name", draw_measured.PICTURES)
def test_a_picture_is_that_of_its_figures(name):
    drawn = image.imread(io.BytesIO(draw_measured.PICTURES[name]()))
    shown = image.imread(IMAGES / f"{name}.png")
    if matplotlib.__version__ == pinned("matplotlib"):
        assert drawn.shape == shown.shape
        assert numpy.abs(drawn - shown).max() < 0.1
    else:  # other versions draw text in another place
        assert abs(drawn.mean() - shown.mean()) < 0.05
