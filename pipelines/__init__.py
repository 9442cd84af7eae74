"""This package holds the graph, cluster profiles, the local run, submission and the command line."""
