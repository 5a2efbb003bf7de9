"""Residuals that come from a function: `least_squares`."""
