"""Everything that runs inside a container of the pipeline."""
