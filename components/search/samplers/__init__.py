"""Samplers suggest what to try next, from a study's history."""
