"""The generated catalogue, in the published formats."""
