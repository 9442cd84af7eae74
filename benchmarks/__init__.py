"""`make bench`: speed and search quality on this machine, side by side with what an ordinary user would write."""
