"""Exports hand a study over to tools that people know; each needs its library, from the extra `exports`."""
