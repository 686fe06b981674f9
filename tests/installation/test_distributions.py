"""The source distribution and the wheel install, and a user's program passes the type checker."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", ".github", "benchmarks", "docs", "examples", "pytorch_dni", "tasks", "tests")
FILES = ("*.md", "*.cff", "*.toml", "requirements*.txt", "LICENSE", "setup.py")
PROGRAM = Path(__file__).with_name("user_program.py")


def call(*command, **options):
    """Run a command, and show what it printed where it fails."""
    found = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a copy of the sources, so that building leaves nothing in the folder of the tests."""
    copy = tmp_path_factory.mktemp("sources") / "copy"
    ignored = shutil.ignore_patterns(
        ".git", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def built(sources, tmp_path_factory):
    """Return the source distribution and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": archive, "wheel": wheel}


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """Return the source distribution as a folder that has the name of the package."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built["sdist"]) as archive:
        archive.extractall(folder, filter="data")
    (only,) = folder.iterdir()
    return only.rename(folder / "pytorch_dni")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a cache of the type checker, which reads PyTorch once."""
    return tmp_path_factory.mktemp("cache")


def environment(folder):
    """Make an environment that has what this one has, but for the project, and return its Python.

    The packages of this environment are found by a path file; those of the path files in them, as
    that of the project, are not.
    """
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.parametrize("kind", ["sdist", "wheel", "editable"])
def test_it_installs_type_checks_and_trains(kind, built, unpacked, cache, tmp_path):
    python = environment(tmp_path / "environment")
    target = ["-e", unpacked] if kind == "editable" else [built[kind]]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, *options, *target, cwd=tmp_path)
    # The program lies beside the folder of the sources, which has the name of the package.
    place = unpacked.parent if kind == "editable" else tmp_path
    program = shutil.copy(PROGRAM, place / "program.py")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    printed = call(python, program, cwd=place, env=clean)
    origin, losses = printed.splitlines()
    expected = unpacked if kind == "editable" else tmp_path / "environment"
    assert Path(origin).is_relative_to(expected), origin
    first, last = map(float, losses.split())
    assert last < first
    checker = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    checked = call(*checker, "--cache-dir", cache, program, cwd=place, env=clean)
    assert "Success" in checked


def test_the_wheel_holds_the_package_alone(built, sources):
    names = call(sys.executable, "-m", "zipfile", "--list", built["wheel"])
    listed = {line.split()[0] for line in names.splitlines()[1:]}
    modules = {str(path.relative_to(sources)) for path in sources.glob("pytorch_dni/**/*.py")}
    assert {name for name in listed if ".dist-info/" not in name} == {
        *modules,
        "pytorch_dni/py.typed",
    }


def test_the_tests_run_from_the_source_distribution(unpacked, sources):
    kept = {
        str(path.relative_to(sources))
        for folder in FOLDERS
        for path in (sources / folder).rglob("*")
        if path.is_file()
    }
    kept |= {path.name for pattern in FILES for path in sources.glob(pattern)}
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    assert len(kept) > 300
    assert not kept - found
    some = [
        "tests/test_torch_names.py",
        "tests/documents/test_package.py",
        "-p",
        "no:cacheprovider",
    ]
    call(sys.executable, "-m", "pytest", *some, cwd=unpacked)
