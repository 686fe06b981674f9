"""Plots of the benchmarks show all curves, ranges and whole numbers."""

import pytest
from matplotlib.container import ErrorbarContainer

from benchmarks import memory, pipeline, training_methods, window_results
from tasks import plots


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of the figures that are drawn."""
    figures = []
    to_png = plots.to_png

    def keep(figure, dpi=120):
        figures.append(figure)
        return to_png(figure, dpi)

    monkeypatch.setattr(plots, "to_png", keep)
    return figures


def legend(figure):
    return [text.get_text() for text in figure.legends[0].texts]


def bars(axes):
    return [found for found in axes.containers if isinstance(found, ErrorbarContainer)]


def test_memory_shows_equal_methods_and_the_range_of_step_times(drawn):
    figures = [
        {"network": network, "method": method, "blocks": blocks, "activation_bytes": 2**20 * blocks,
         "ratio": 1.0, "low": 0.9, "high": 1.2}
        for network in ("MLP, width 8", "CNN, 8 channels")
        for method in training_methods.METHODS
        for blocks in (8, 16)
    ]  # fmt: skip
    assert memory.plot(figures).startswith(b"\x89PNG")
    upper, _, lower, _ = drawn[0].axes
    assert legend(drawn[0]) == [*training_methods.METHODS]
    styles = {(line.get_color(), line.get_marker(), line.get_linewidth()) for line in upper.lines}
    assert len(styles) == len(training_methods.METHODS)
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["8", "16"]
    assert "[MiB]" in upper.get_ylabel()
    assert len(bars(lower)) == len(training_methods.METHODS)
    for found in bars(lower):
        low, high = found.lines[2][0].get_segments()[0][:, 1]
        assert (low, high) == pytest.approx((0.9, 1.2))


def test_the_study_of_windows_has_intervals_and_whole_numbers(drawn):
    points = [
        window_results.Point(task, window, mode, 2.0 + window / 8, 1.5, 3.5)
        for task in ("copy", "characters", "recall")
        for window in (2, 3)
        for mode in ("bp", "dni")
    ]
    assert window_results.plot_points(points, {"characters"}).startswith(b"\x89PNG")
    assert legend(drawn[0]) == ["bp", "dni"]
    copy, characters, recall, empty = drawn[0].axes
    assert not empty.axison
    for axes in (copy, characters, recall):
        assert axes.get_xticks().tolist() == [2, 3]
        assert len(bars(axes)) == 2
    assert all(tick == round(tick) for tick in copy.get_yticks())
    assert characters.get_ylabel() == "bits per character"


def test_simulated_pipelines_have_plain_numbers(drawn):
    simulated = [
        {"stages": stages, "latency": latency, "way": way, "batches_per_second": 10.0 / stages}
        for stages in (2, 64)
        for latency in (0.0, 0.02, 0.1)
        for way in ("decoupled", "GPipe", "1F1B")
    ]
    assert pipeline.plot({"simulation": simulated}).startswith(b"\x89PNG")
    assert legend(drawn[0]) == ["decoupled", "GPipe", "1F1B"]
    assert all(tick == round(tick) for axes in drawn[0].axes for tick in axes.get_xticks())
    assert "[ms]" in drawn[0].axes[0].get_xlabel()
