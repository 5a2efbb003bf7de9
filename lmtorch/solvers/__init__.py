"""Who solves the damped equations."""
