"""What the data say about the parameters: covariances, intervals, regions, refits."""
