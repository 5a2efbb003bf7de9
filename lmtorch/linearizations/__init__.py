"""In which form the linear model is held."""
