"""Who damps, and in which metric: strategies for λ or the radius, and rules for D."""
