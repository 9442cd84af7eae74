"""A store in a Google Cloud Storage bucket, by generation preconditions."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import uuid
import warnings
from collections.abc import Callable
from typing import TypeVar

import google.auth.exceptions
import requests
import urllib3
from google.api_core import exceptions as api
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from components.errors import ConfigurationError, PermissionDeniedError, StorageError
from components.secret_values import check_google_key
from components.stores.contract import DEADLINE_SECONDS, ObjectNotFoundError, checked_key
from components.stores.retrying import CorruptedError, retrying

TIMEOUT_SECONDS = (10.0, 60.0)
"""To connect, and between two bytes."""

_PASSING = (
    ConnectionError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.InvalidJSONError,  # an answer that was damaged on its way
    http.client.HTTPException,
    urllib3.exceptions.HTTPError,
    google.auth.exceptions.TransportError,
)
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


class GcsStore:
    """Keys are object names under a prefix of a bucket.

    Each object carries a nonce: a create whose acknowledgement was lost is refused when it is repeated, and the nonce
    tells that the object is this writer's own.

    Args:
        bucket: Name of the bucket.
        prefix: Without slashes at its ends; empty for the whole bucket.
        deadline_seconds: How long calls are repeated.
        client: Of the JSON API; made on the first call by default, with the credentials the environment offers.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        client: storage.Client | None = None,
    ) -> None:
        self._connection = _Connection(bucket, client)
        self._bucket = bucket
        self._prefix = prefix
        self._deadline_seconds = deadline_seconds
        self.uri = f"gs://{bucket}/{prefix}".rstrip("/")

    def __truediv__(self, prefix: str) -> GcsStore:
        return self._copy(self._name(prefix), self._deadline_seconds)

    def with_deadline(self, seconds: float) -> GcsStore:
        """Return the same store with another deadline."""
        return self._copy(self._prefix, seconds)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of this key."""
        nonce, tries = uuid.uuid4().hex, 0

        def call() -> bool:
            nonlocal tries
            tries += 1
            try:
                self._upload(key, data, nonce, if_generation_match=0)
            except api.PreconditionFailed:
                # Only a repeated call can meet its own object.
                return tries > 1 and self._nonce(key) == nonce
            return True

        return self._run("writing", key, call)

    def read(self, key: str) -> bytes:
        """Return an object's content."""

        def call() -> bytes:
            try:
                return self._blob(key).download_as_bytes(retry=None, timeout=TIMEOUT_SECONDS, checksum="crc32c")
            except DataCorruption as error:
                raise CorruptedError(str(error)) from error

        return self._run("reading", key, call)

    def write(self, key: str, data: bytes) -> None:
        """Write an object whatever was there."""
        self._run("writing", key, lambda: self._upload(key, data, uuid.uuid4().hex))

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted."""
        start = f"{self._prefix}/" if self._prefix else ""

        def call() -> list[str]:
            blobs = self._connection.bucket().client.list_blobs(
                self._bucket,
                prefix=start + prefix,
                fields="items(name),nextPageToken",
                retry=None,
                timeout=TIMEOUT_SECONDS,
            )
            return sorted(blob.name[len(start) :] for blob in blobs)

        return self._run("listing", prefix, call)

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""
        try:
            self._run("deleting", key, lambda: self._blob(key).delete(retry=None, timeout=TIMEOUT_SECONDS))
        except ObjectNotFoundError:
            return

    def sweep(self, min_age_seconds: float) -> None:
        """Do nothing: an unfinished upload is no object, and the service drops it after a week."""

    def _copy(self, prefix: str, deadline_seconds: float) -> GcsStore:
        copy = GcsStore(self._bucket, prefix, deadline_seconds=deadline_seconds)
        copy._connection = self._connection
        return copy

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}" if self._prefix else checked_key(key)

    def _blob(self, key: str) -> storage.Blob:
        return self._connection.bucket().blob(self._name(key))

    def _upload(self, key: str, data: bytes, nonce: str, if_generation_match: int | None = None) -> None:
        blob = self._blob(key)
        blob.metadata = {"nonce": nonce}
        blob.cache_control = "no-store"
        blob.upload_from_string(
            data,
            content_type="application/json" if key.endswith(".json") else "application/octet-stream",
            if_generation_match=if_generation_match,
            retry=None,
            timeout=TIMEOUT_SECONDS,
            checksum="crc32c",
        )

    def _nonce(self, key: str) -> str:
        blob = self._blob(key)
        blob.reload(retry=None, timeout=TIMEOUT_SECONDS)
        return (blob.metadata or {}).get("nonce", "")

    def _run(self, action: str, key: str, call: Callable[[], T]) -> T:
        uri = f"{self.uri}/{key}"
        try:
            return retrying(
                call,
                what=f"{action} {uri}",
                is_passing=_is_passing,
                deadline_seconds=self._deadline_seconds,
            )
        except api.NotFound as error:
            if "bucket does not exist" in error.message:
                raise ConfigurationError(
                    f"bucket {self._bucket} must exist; got {error.message} Create it or correct the URI"
                ) from error
            raise ObjectNotFoundError(uri) from error
        except api.Forbidden as error:
            raise PermissionDeniedError(
                f"{action} {uri} must be allowed; got {error.message} Grant the permission to that principal"
            ) from error
        except (api.Unauthorized, google.auth.exceptions.GoogleAuthError) as error:
            raise ConfigurationError(
                f"{action} {uri} must be authorised; got {type(error).__name__}: {error}. Bind the service account"
                " (Workload Identity) or set GOOGLE_APPLICATION_CREDENTIALS"
            ) from error
        except (api.GoogleAPICallError, InvalidResponse) as error:
            raise StorageError(f"{action} {uri} must succeed; got {error}. Check the bucket") from error


class _Connection:
    """The bucket, connected on first use; shared by all stores that were derived from one."""

    def __init__(self, bucket: str, client: storage.Client | None) -> None:
        self._name = bucket
        self._client = client
        self._lock = threading.Lock()

    def bucket(self) -> storage.Bucket:
        with self._lock:
            if self._client is None:
                # Off: one request per bucket that needs a permission of its own and serves tracing only.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                # More threads than pooled connections are no news.
                logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about quota projects of personal credentials
                    check_google_key()
                    self._client = storage.Client()
            return self._client.bucket(self._name)


def _is_passing(error: Exception) -> bool:
    if isinstance(error, api.GoogleAPICallError):
        return error.code in _PASSING_STATUS
    if isinstance(error, InvalidResponse):
        return error.response.status_code in _PASSING_STATUS
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and error.retryable:
        return True  # the metadata server of the node was busy
    return isinstance(error, _PASSING)
