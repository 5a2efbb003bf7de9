"""A descent as machine code: the loop's iteration and the user's function, traced and compiled."""
