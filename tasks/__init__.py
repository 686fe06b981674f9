"""Programs that train with and without synthetic gradients, side by side.

Each runs as ``python -m tasks.NAME``; ``--help`` lists its options.
"""
