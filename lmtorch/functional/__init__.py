"""What `least_squares` is made of: how it calls a user's function, starts, watches and returns."""
