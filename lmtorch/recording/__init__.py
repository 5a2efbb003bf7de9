"""The loop's arithmetic of one small problem, recorded once and run again as flat Python."""
