"""The loop, and what it is about: a problem, a method, a status."""
