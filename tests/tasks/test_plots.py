"""Pictures can be read: whole ticks, curves that differ without colours, bands of seeds."""

import itertools

import numpy
import pytest
import torch
from matplotlib import colors
from matplotlib.collections import PolyCollection

from tasks import influence_picture, plots
from tasks.image_data import ImageSet
from tasks.plots import HistoryEntry

STYLES = [plots.curve_style(position) for position in range(7)]
WIDEST = 9.5  # inches; the text of a wider picture is too small on a page


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of the figures that are drawn."""
    figures = []
    to_png = plots.to_png

    def keep(figure, dpi=120):
        figures.append(figure)
        return to_png(figure, dpi)

    monkeypatch.setattr(plots, "to_png", keep)
    monkeypatch.setattr(influence_picture, "to_png", keep)
    return figures


def ticks(axis):
    """Return the ticks that are shown."""
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_majorticklocs() if low <= tick <= high]


def are_whole(axis):
    found = ticks(axis)
    return len(found) > 1 and all(tick == round(tick) for tick in found)


def visible(image, color):
    """Return the number of pixels that have a colour."""
    wanted = 255 * numpy.array(colors.to_rgb(color))
    return int((numpy.abs(image[..., :3] - wanted).max(-1) < 12).sum())


@pytest.mark.parametrize(("below", "above"), [*itertools.combinations(range(7), 2)])
def test_a_curve_on_an_equal_one_does_not_hide_it(below, above):
    figure = plots.new_figure(2, 1.5)
    figure.set_dpi(120)  # that of pictures
    axes = figure.subplots()
    for position in (below, above):
        axes.plot([1, 2, 3], [5, 6, 5], **STYLES[position])
    figure.canvas.draw()
    image = numpy.asarray(figure.canvas.buffer_rgba()).astype(int)
    assert visible(image, STYLES[below]["color"]) > 100
    assert visible(image, STYLES[above]["color"]) > 100


def test_curves_differ_without_their_colours():
    for key in ("linestyle", "marker", "linewidth", "color"):
        assert len({str(style[key]) for style in STYLES}) == len(STYLES)


def test_updates_and_lengths_have_whole_ticks(drawn):
    entries = [HistoryEntry(i, 0.3 * i, 1 + i // 2) for i in range(4)]
    runs = [("bp", entries), ("bp", entries), ("dni", entries)]
    plots.plot_histories(runs, "largest length solved", "copy", steps=True)
    left, right = drawn[0].axes
    assert are_whole(left.xaxis)
    assert are_whole(left.yaxis)
    assert are_whole(right.yaxis)
    assert "[s]" in right.get_xlabel()
    assert [text.get_text() for text in drawn[0].legends[0].texts] == ["bp", "dni"]
    plots.plot_histories(runs, "bits", "text")
    assert not are_whole(drawn[1].axes[0].yaxis)


def test_cosines_have_whole_steps_and_parts(drawn):
    rows = [(1, [0.1, 0.2, 1.0]), (2, [0.1, 0.2, 1.0])]
    plots.plot_cosines({"feedback": rows, "local": rows})
    for axes in drawn[0].axes[:2]:
        assert are_whole(axes.xaxis)
        assert ticks(axes.yaxis) == [1, 2, 3]


def test_seeds_are_shown_as_a_band(drawn):
    def history(seeds):
        return [
            {"label": label, "step": step, "test_error": 0.1 * (seed + 1) / step}
            for label in ("bp", "dni")
            for step in (1, 2, 3)
            for seed in range(seeds)
        ]

    plots.plot_test_errors(history(3), "digits")
    plots.plot_test_errors(history(1), "digits")
    several, one = (figure.axes[0] for figure in drawn)
    bands = [found for found in several.collections if isinstance(found, PolyCollection)]
    assert len(bands) == 2
    heights = bands[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((100 * 0.1 / 3, 100 * 0.3))
    assert "3 seeds" in several.get_title()
    assert several.lines[0].get_ydata()[0] == pytest.approx(20)
    assert not one.collections
    assert "seeds" not in one.get_title()
    assert are_whole(one.xaxis)
    assert one.get_ylabel().endswith("[%]")


def test_planted_labels_differ_without_their_colour(drawn):
    training = ImageSet(torch.rand(4, 1, 8, 8), torch.tensor([3, 4, 5, 6]))
    planted = torch.tensor([False, True, False, False])
    row = influence_picture.Row(torch.rand(1, 8, 8), 5, 3, [0, 1], [2, 3])
    influence_picture.draw(training, planted, [row, row])
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[:8] == ["", "5, taken for 3", "", "3", "4*", "", "5", "6"]
    heads = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    assert heads == ["wrong test digit", "2 most helpful", "2 most harmful"]
    assert drawn[0].get_size_inches()[0] < WIDEST
    assert influence_picture.draw(training, planted, []).startswith(b"\x89PNG")
