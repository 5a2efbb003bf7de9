"""What may be wrong with a fit although its run has ended well."""
