"""What was measured: data as users have them, checked, converted and whitened."""
