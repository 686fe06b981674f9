"""Thousands of steps: neither memory nor the number of Python objects grows."""

import gc
import os
from pathlib import Path

import pytest

from tests.support.ways import run_of

ALWAYS, FURTHER = ["backward", "exact every", "eager"], ["update", "labels", "eager, labels", "rnn"]
LONG = pytest.mark.long
CASES = [
    *[pytest.param(way, 60, 300, id=f"{way}, 300") for way in ALWAYS],
    *[pytest.param(way, 1000, 5000, id=f"{way}, 5000", marks=LONG) for way in (*ALWAYS, *FURTHER)],
]
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory():
    """Return the resident memory in bytes, and how many objects Python tracks."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return resident, len(gc.get_objects())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(("way", "warm", "steps"), CASES)
def test_training_needs_no_more_memory_with_time(way, warm, steps):
    options = {"exact_every": 4} if way == "exact every" else {}
    run = run_of(way, **options)
    run.train(0, warm)
    resident, objects = memory()
    run.train(warm, steps)
    more_resident, more_objects = memory()
    assert more_objects - objects < 50  # of pytest and of caches; one for each step would be 240
    assert more_resident - resident < 4 * 2**20
