"""What is asked of a Kubeflow Pipelines server."""
