"""What people have: networks, loops and features of PyTorch, each on four ways to learn.

A row is data (`row.py`); one checker (`check.py`) does the same with every row. The files of rows
are the groups. `python -m tests.matrix.record` runs all rows and writes `docs/compatibility.md`.
"""
