"""A store in an S3-compatible bucket (S3, MinIO, SeaweedFS), by conditional writes."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
import botocore.config
from botocore import exceptions as boto

from components.errors import ConfigurationError, PermissionDeniedError, StorageError
from components.stores.aws_environment import check_aws_environment
from components.stores.contract import DEADLINE_SECONDS, ObjectNotFoundError, checked_key
from components.stores.retrying import CorruptedError, retrying

CONNECT_SECONDS, READ_SECONDS = 10, 60

_PASSING = (boto.HTTPClientError, boto.IncompleteReadError, boto.ResponseStreamingError)
_PASSING_STATUS = (408, 409, 429, 500, 502, 503, 504)
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
)
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}

T = TypeVar("T")


class S3Store:
    """Keys are object keys under a prefix of a bucket. Endpoint and credentials come from the environment.

    Each object carries a nonce: a create whose acknowledgement was lost is refused when it is repeated, and the nonce
    tells that the object is this writer's own. It also carries its SHA-256, since not every server checks sums.

    Args:
        bucket: Name of the bucket.
        prefix: Without slashes at its ends; empty for the whole bucket.
        deadline_seconds: How long calls are repeated.
        client: Of S3; made on the first call by default. `AWS_ENDPOINT_URL_S3` points it at another server.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, deadline_seconds: float = DEADLINE_SECONDS, client: Any = None
    ) -> None:
        self._connection = _Connection(client)
        self._bucket = bucket
        self._prefix = prefix
        self._deadline_seconds = deadline_seconds
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def __truediv__(self, prefix: str) -> S3Store:
        return self._copy(self._name(prefix), self._deadline_seconds)

    def with_deadline(self, seconds: float) -> S3Store:
        """Return the same store with another deadline."""
        return self._copy(self._prefix, seconds)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of this key."""
        nonce, tries = uuid.uuid4().hex, 0

        def call() -> bool:
            nonlocal tries
            tries += 1
            try:
                self._put(key, data, nonce, IfNoneMatch="*")
            except boto.ClientError as error:
                if _status(error) != 412:
                    raise
                # Only a repeated call can meet its own object.
                return tries > 1 and self._nonce(key) == nonce
            return True

        return self._run("writing", key, call)

    def read(self, key: str) -> bytes:
        """Return an object's content."""

        def call() -> bytes:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key))
            with answer["Body"] as body:
                content = body.read()
            expected, digest = answer["Metadata"].get("sha256"), hashlib.sha256(content).hexdigest()
            if expected and expected != digest:
                raise CorruptedError(f"SHA-256 must be {expected}; got {digest}")
            return content

        return self._run("reading", key, call)

    def write(self, key: str, data: bytes) -> None:
        """Write an object whatever was there."""
        self._run("writing", key, lambda: self._put(key, data, uuid.uuid4().hex))

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted."""
        start = f"{self._prefix}/" if self._prefix else ""

        def call() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start + prefix)
            return sorted(row["Key"][len(start) :] for page in pages for row in page.get("Contents", ()))

        return self._run("listing", prefix, call)

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""
        self._run("deleting", key, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._name(key)))

    def sweep(self, min_age_seconds: float) -> None:
        """Do nothing: an object is put in one request, an unfinished one leaves nothing."""

    @property
    def _client(self) -> Any:
        return self._connection.client()

    def _copy(self, prefix: str, deadline_seconds: float) -> S3Store:
        copy = S3Store(self._bucket, prefix, deadline_seconds=deadline_seconds)
        copy._connection = self._connection
        return copy

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}" if self._prefix else checked_key(key)

    def _put(self, key: str, data: bytes, nonce: str, **condition: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._name(key),
            Body=data,
            ContentType="application/json" if key.endswith(".json") else "application/octet-stream",
            CacheControl="no-store",
            Metadata={"nonce": nonce, "sha256": hashlib.sha256(data).hexdigest()},
            **condition,
        )

    def _nonce(self, key: str) -> str:
        return self._client.head_object(Bucket=self._bucket, Key=self._name(key))["Metadata"].get("nonce", "")

    def _run(self, action: str, key: str, call: Callable[[], T]) -> T:
        uri = f"{self.uri}/{key}"
        try:
            return retrying(
                call, what=f"{action} {uri}", is_passing=_is_passing, deadline_seconds=self._deadline_seconds
            )
        except boto.ClientError as error:
            code, status = error.response["Error"].get("Code", ""), _status(error)
            said = f"{code} {error.response['Error'].get('Message', '')}".strip()
            if code == "NoSuchBucket":
                raise ConfigurationError(
                    f"bucket {self._bucket} must exist; got {said}. Create it or correct the URI"
                ) from error
            if status == 404:
                raise ObjectNotFoundError(uri) from error
            if status == 401 or code in _BAD_CREDENTIALS:
                raise ConfigurationError(
                    f"{action} {uri} must be authorised; got {said}. Renew the access key in the secret"
                ) from error
            if status == 403:
                raise PermissionDeniedError(
                    f"{action} {uri} must be allowed; got {said}. Grant the permission to the access key's owner"
                ) from error
            raise StorageError(f"{action} {uri} must succeed; got {said}. Check the bucket") from error
        except _CREDENTIALS as error:
            raise ConfigurationError(
                f"{action} {uri} must be authorised; got {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
                " mount the secret"
            ) from error
        except boto.BotoCoreError as error:
            raise StorageError(f"{action} {uri} must succeed; got {error}. Check the bucket") from error


class _Connection:
    """The client, made on first use; shared by all stores that were derived from one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()

    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                check_aws_environment()
                config = botocore.config.Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    max_pool_connections=32,
                    retries={"total_max_attempts": 1},
                    # Trailing checksums are not understood by every server; SHA-256 travels as metadata instead.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                )
                self._client = boto3.session.Session().client("s3", config=config, region_name=_region())
            return self._client


def _region() -> str:
    """The configured region; any name does for servers other than Amazon's."""
    return boto3.session.Session().region_name or "us-east-1"


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _is_passing(error: Exception) -> bool:
    if isinstance(error, boto.ClientError):
        return _status(error) in _PASSING_STATUS
    return isinstance(error, _PASSING)
