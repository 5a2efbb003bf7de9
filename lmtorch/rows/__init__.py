"""Rows of the Jacobian, by what is known of their structure."""
