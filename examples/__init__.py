"""Examples that run: `python -m examples.NAME`, or all of the first ones with `make demo`."""
