"""Every Python block of the README and the pages runs, each page from its own beginning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert found, f"{page.name} shows no code"
    namespace = {}
    for number, block in enumerate(found, 1):
        torch.manual_seed(number)
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_drawings_are_what_their_code_draws(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import draw, pathlib; "
    code += "draw.main(pathlib.Path(sys.argv[2])); print(*draw.DRAWINGS)"
    command = [sys.executable, "-c", code, str(ROOT / "docs"), str(tmp_path)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    kept = {path.stem for path in (ROOT / "docs" / "images").glob("*.svg")}
    assert kept == {*names} == {path.stem for path in tmp_path.glob("*.svg")}
    shown = (ROOT / "docs" / "interfaces.md").read_text()
    assert all(f"images/{name}.svg" in shown for name in names)
    for name in names:
        texts = [
            re.findall(r"<text[^>]*>([^<]*)</text>", (folder / f"{name}.svg").read_text())
            for folder in (tmp_path, ROOT / "docs" / "images")
        ]
        assert texts[0] == texts[1] != []
