"""Where a fit may start, if its user has not said it."""
