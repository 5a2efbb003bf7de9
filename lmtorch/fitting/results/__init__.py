"""What a user is given after a fit: numbers, words, tables and pictures."""
