"""What is minimised: residuals as pure functions of the parameters."""
