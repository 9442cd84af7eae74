"""A model and test data become scores, a verdict and a champion."""
