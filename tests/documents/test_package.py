"""The package needs torch alone, and its public names are documented."""

import subprocess
import sys
from pathlib import Path

import pytorch_dni


def test_import_needs_torch_alone():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "for name in ('tqdm', 'torchvision', 'matplotlib', 'hypothesis'):\n"
        "    sys.modules[name] = None\n"
        "import pytorch_dni\n"
        "new = {n.split('.')[0] for n in set(sys.modules) - before if sys.modules[n]}\n"
        # Older versions of PyTorch import these two, on which they depend, later.
        "own = {'sympy', 'mpmath'}\n"
        "assert not new - own - {'pytorch_dni', 'torch'} - set(sys.stdlib_module_names), new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist_and_are_documented():
    for name in pytorch_dni.__all__:
        assert getattr(pytorch_dni, name).__doc__, name


def test_versions_agree():
    root = Path(__file__).parents[2]
    version = pytorch_dni.__version__
    assert f'\nversion = "{version}"\n' in (root / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
    assert f"\n## {version} " in (root / "CHANGELOG.md").read_text()
