"""Residuals that come from a closure: the optimizer."""
