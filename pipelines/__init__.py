"""The graph, cluster profiles, local run, submission and command line."""
