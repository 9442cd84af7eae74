"""Stores have one small interface to a local directory, Google Cloud Storage and S3-compatible servers."""

import os
import uuid
from importlib import import_module
from urllib.parse import unquote, urlsplit

from components.buckets import BUCKET_STORES, split_store, without_user
from components.errors import ConfigurationError, ParameterError
from components.stores.contract import DEADLINE_SECONDS, ObjectNotFoundError, Stat, Store

__all__ = ["ObjectNotFoundError", "Stat", "Store", "check_store", "open_store"]

CHECK_SECONDS = 30.0


def open_store(uri: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> Store:
    """Return the store that a URI names; nothing is asked of it yet.

    Args:
        uri: `gs://bucket/prefix`, `s3://bucket/prefix`, `file:///directory` or a path.
        deadline_seconds: How long its calls are repeated.

    Raises:
        ParameterError: The URI is not one of these.
    """
    try:
        scheme, rest = split_store(uri)
    except ValueError as error:
        raise ParameterError(f"store {error}; got {without_user(uri)!r}") from None
    if scheme == "file":
        from components.stores.local import LocalStore

        return LocalStore(unquote(urlsplit(uri).path) if "://" in uri else os.path.expanduser(rest))  # noqa: PTH111 - keeps an unknown ~name
    bucket, _, prefix = rest.partition("/")
    prefix = "/".join(part for part in prefix.split("/") if part)
    module, _, name = BUCKET_STORES[scheme].partition(":")
    return getattr(import_module(module), name)(bucket, prefix, deadline_seconds=deadline_seconds)


def check_store(store: Store) -> None:
    """Write, create twice, read, list and delete a probe object: what a study needs, before anything is spent.

    Raises:
        ConfigurationError: The store ignores create-if-absent, or there is no such bucket.
        PermissionDeniedError: One of the permissions is missing.
        UnavailableError: The store did not answer within 30 s.
    """
    probe = store.with_deadline(CHECK_SECONDS)
    key = f".probe/{uuid.uuid4().hex}"
    first = probe.create(key, b"first")
    second = probe.create(key, b"second")
    content, listed = probe.read(key), probe.list(".probe/")
    probe.write(key, b"third")
    probe.delete(key)
    if not first or second or content != b"first":
        raise ConfigurationError(
            f"{store.uri} must honour create-if-absent; got a second writer that overwrote the first. Use a store with"
            " conditional writes (Cloud Storage, S3, MinIO, a recent SeaweedFS, or a local directory)"
        )
    if key not in listed:
        raise ConfigurationError(f"{store.uri} must list what was just written; got a listing without it")
