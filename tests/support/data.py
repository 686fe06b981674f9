"""Data that only some machines have."""

import os

import pytest

needs_data = pytest.mark.skipif(
    not os.environ.get("DNI_DATA"), reason="DNI_DATA names no folder with MNIST"
)
