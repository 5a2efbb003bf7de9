"""What is summed: squares, or robust functions of them."""
