"""What would stop a run on a cluster, found before it starts."""
