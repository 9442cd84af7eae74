"""Stores in buckets are named by URIs; this table says which schemes there are and which class opens each."""

BUCKET_STORES = {"gs": "components.stores.gcs:GcsStore", "s3": "components.stores.s3:S3Store"}
"""The class by the scheme of the URI, as `module:class`."""


def example_uris(rest: str) -> str:
    """Return one URI of each scheme for a message, for example `gs://bucket/prefix or s3://bucket/prefix`."""
    return " or ".join(f"{scheme}://{rest}" for scheme in BUCKET_STORES)
