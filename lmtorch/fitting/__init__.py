"""Curve fitting round `least_squares`: named parameters, data with errors, uncertainties, reports."""
