"""Measurements: `python -m bench.run` runs all of them. Not part of the installed package."""
