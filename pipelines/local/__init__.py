"""These modules run the pipeline on this machine, without a cluster."""
