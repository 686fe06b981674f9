"""The images of the docs are those that their code draws."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Stroke

ROOT = Path(__file__).parents[2]


def test_images_have_the_texts_that_their_code_draws(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import draw, pathlib; "
    code += "draw.main(pathlib.Path(sys.argv[2])); print(*draw.DRAWINGS)"
    command = [sys.executable, "-c", code, str(ROOT / "docs"), str(tmp_path)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    existing = {path.stem for path in (ROOT / "docs" / "images").glob("*.svg")}
    assert existing == {*names} == {path.stem for path in tmp_path.glob("*.svg")}
    shown = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert all(f"images/{name}.svg" in shown for name in names)
    for name in names:
        texts = [
            re.findall(r"<text[^>]*>([^<]*)</text>", (folder / f"{name}.svg").read_text())
            for folder in (tmp_path, ROOT / "docs" / "images")
        ]
        assert texts[0] == texts[1] != []


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw all drawings; return their figures by name."""
    backend = matplotlib.get_backend()
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import draw

    figures = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", figures.append)
    for name, drawing in draw.DRAWINGS.items():
        drawing.save(tmp_path / f"{name}.svg")
    for figure in figures:
        close(figure)
    pyplot.switch_backend(backend)
    return dict(zip(draw.DRAWINGS, figures, strict=True))


def on_canvas(artist):
    """Return the path of a line or an arrow on the canvas."""
    return artist.get_transform().transform_path(artist.get_path())


def test_no_line_crosses_a_text(drawn):
    for name, figure in drawn.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        (axes,) = figure.axes
        arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
        boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        assert arrows
        for text in axes.texts:
            extent = text.get_window_extent(canvas.get_renderer())
            # A box covers the line of the cut that goes through it.
            in_box = any(on_canvas(box).contains_point(extent.p0) for box in boxes)
            lines = [] if in_box else axes.lines
            for line in (*arrows, *lines):
                # An arrow consists of a line and a head, which no line connects.
                strokes = on_canvas(line).to_polygons(closed_only=False)
                crosses = [s for s in strokes if Stroke(s).intersects_bbox(extent, filled=False)]
                assert not crosses, f"{name}: {text.get_text()!r}"
