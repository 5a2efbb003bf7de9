"""Fits in files: what is written, and what is made of it again."""
