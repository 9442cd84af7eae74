"""A model and test data become figures, a verdict and a champion."""
