"""Programs that train a network with and without synthetic gradients and compare the results.

Each program runs as ``python -m tasks.NAME``; ``--help`` lists its options.
"""
