"""Preflight finds what would stop a run on a cluster before it starts."""
