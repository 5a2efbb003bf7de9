"""Errors in x as well as in y: `odr`."""
