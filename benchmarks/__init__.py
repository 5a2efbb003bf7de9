"""Benchmarks beside rivals, as ratios measured in one run: `python -m benchmarks`."""
