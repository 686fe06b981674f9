"""The site of the documentation: its reference and its pictures are complete.

``.ci/run`` builds the site, with warnings as errors.
"""

import re
from pathlib import Path

import pytorch_dni
from pytorch_dni import distributed, individual, monitor

ROOT = Path(__file__).parents[2]


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs/site/reference.md").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    names = {f"pytorch_dni.{name}" for name in pytorch_dni.__all__}
    for package in (distributed, individual, monitor):
        names |= {f"{package.__name__}.{name}" for name in package.__all__}
    # Private modules define the callbacks of other packages.
    assert {re.sub(r"\.monitor\._\w+", ".monitor", name) for name in listed} == names


def test_the_pictures_of_pages_are_in_the_gallery():
    gallery = (ROOT / "docs/site/gallery.md").read_text()
    pictures = {path.name for path in (ROOT / "docs/images").glob("*.png")}
    assert pictures == set(re.findall(r"\.\./images/(\w+\.png)", gallery))


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        assert f"{name}\n" in navigation, name
