"""Stores in buckets are named by URIs; this table says which schemes there are and which class opens each."""

import re

BUCKET_STORES = {"gs": "components.stores.gcs:GcsStore", "s3": "components.stores.s3:S3Store"}
"""The class by the scheme of the URI, as `module:class`."""


def example_uris(rest: str) -> str:
    """Return one URI of each scheme for a message, for example `gs://bucket/prefix or s3://bucket/prefix`."""
    return " or ".join(f"{scheme}://{rest}" for scheme in BUCKET_STORES)


def split_store(uri: str) -> tuple[str, str]:
    """Return the scheme of what names a store, and the rest; a path has the scheme `file`.

    Raises:
        ValueError: It names no store; the text is the rule.
    """
    scheme, _, rest = uri.partition("://") if "://" in uri else ("file", "", uri)
    is_bucket = scheme in BUCKET_STORES and re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", rest.partition("/")[0])
    is_directory = scheme == "file" and (rest.strip("/") or rest == "/")
    if is_directory and "://" in uri and not rest.startswith(("/", "localhost/")):
        raise ValueError("must have three slashes, as file:///data")
    if not is_bucket and not is_directory:
        raise ValueError(f"must be {example_uris('bucket/prefix')} or a directory")
    return scheme, rest


def without_user(uri: str) -> str:
    """Return a URI as messages may show it: with the user and password struck out."""
    return re.sub(r"//[^/@]*@", "//***@", uri)
