"""These modules talk to a Kubeflow Pipelines server."""
