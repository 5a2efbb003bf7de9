"""Curve fits by `least_squares`: named parameters, data with errors, uncertainties, reports."""
