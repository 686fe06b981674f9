"""The images of the docs are those that their code draws."""

import re
import subprocess
import sys
from pathlib import Path

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
