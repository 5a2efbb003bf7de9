"""How the Jacobian is had."""
