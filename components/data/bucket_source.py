"""Fetches objects from Google Cloud Storage and from S3-compatible stores, in ranges of one pinned version."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from components.data import transfer
from components.data.progress import Progress
from components.data.transfer import MAX_BYTES, Expected, Partial, hex_of_base64
from components.errors import (
    ConfigurationError,
    DataError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    TryAgainError,
    UnavailableError,
)
from components.stores.retrying import retrying

log = logging.getLogger(__name__)

RANGE_BYTES = 16 * 2**20
DEADLINE_SECONDS = 120.0

_PASSING_STATUS = (408, 429, 500, 502, 503, 504)


class Bucket(Protocol):
    """The three calls that fetching needs; each is one request, repeated by the caller."""

    def find(self, name: str) -> "BucketFile | None":
        """Return an object, or None."""

    def under(self, prefix: str, most: int) -> "list[BucketFile]":
        """Return the objects under a prefix, `most` at most."""

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""

    def translated(self, what: str) -> AbstractContextManager[None]:
        """Turn the client's errors into the project's."""


@dataclass(kw_only=True)
class BucketFile:
    """An object; see `transfer.Remote`."""

    bucket: Bucket
    key: str
    shown: str
    name: str
    object_name: str
    version: str
    expected: Expected
    is_pinned: bool = False  # its digests are those of the moment

    def fetch(self, kept: Partial, known_validator: str) -> Expected | None:
        """Bring all bytes into `kept`; see `transfer.Remote`."""
        if known_validator == self.version:
            return None
        num_bytes = self.expected.num_bytes or 0
        if num_bytes > MAX_BYTES:
            raise DataError(f"{self.shown} must have at most {MAX_BYTES:,} bytes; got {num_bytes:,}")
        if kept.validator != self.version or kept.size > num_bytes:
            kept.begin(self.version)
        progress = Progress(self.name, num_bytes, kept.size)
        with kept.path.open("ab") as file:
            while (start := file.tell()) < num_bytes:
                end = min(start + RANGE_BYTES, num_bytes)
                read = partial(self.bucket.read, self.object_name, self.version, start, end)
                data = repeated(self.bucket, self.shown, read)
                if not data:
                    raise DataError(
                        f"{self.shown} must have all its bytes; expected {num_bytes:,} bytes, got {start:,}. Run again"
                    )
                file.write(data)
                progress.add(len(data))
        return self.expected


def open_bucket(scheme: str, name: str) -> Bucket:
    """Return the bucket of `gs://` or `s3://`."""
    return GcsBucket(name) if scheme == "gs" else S3Bucket(name)


def repeated(bucket: Bucket, what: str, call: Callable):
    """Return what a call returns, repeated while it fails in passing, errors as the project's own."""
    with bucket.translated(what):
        return retrying(call, what=what, is_passing=bucket.is_passing, deadline_seconds=DEADLINE_SECONDS)


class GcsBucket:
    """A bucket of Google Cloud Storage, credentials from the environment."""

    def __init__(self, name: str) -> None:
        """Take a bucket's name; nothing is asked yet."""
        self.name = name
        self._client = None

    @property
    def _bucket(self):
        if self._client is None:
            from google.cloud import storage

            self._client = storage.Client()
        return self._client.bucket(self.name)

    def find(self, name: str) -> BucketFile | None:
        """Return an object, or None."""
        blob = self._bucket.get_blob(name, timeout=_timeout(), retry=None)
        return self._file(blob, name.rpartition("/")[2]) if blob else None

    def under(self, prefix: str, most: int) -> list[BucketFile]:
        """Return the objects under a prefix, `most` at most."""
        blobs = self._bucket.list_blobs(prefix=prefix, max_results=most, timeout=_timeout(), retry=None)
        return [self._file(blob, blob.name[len(prefix) :]) for blob in blobs if not blob.name.endswith("/")]

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        blob = self._bucket.blob(name)
        return blob.download_as_bytes(
            start=start,
            end=end - 1,
            raw_download=True,
            if_generation_match=int(version),
            checksum=None,  # ranges have none; the whole file is checked at the end
            timeout=_timeout(),
            retry=None,
        )

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import TransportError

        if isinstance(error, GoogleAPICallError):
            return error.code in _PASSING_STATUS
        # A body that breaks off reaches us as urllib3's own error: the client reads it past requests.
        broken = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, urllib3.exceptions.HTTPError)
        return isinstance(error, (*broken, requests.exceptions.ChunkedEncodingError, TransportError))

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Turn the client's errors into the project's."""
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except (Forbidden, Unauthorized) as error:
            raise PermissionDeniedError(
                f"{what} must be readable; got {error.code}. Grant roles/storage.objectViewer on bucket {self.name}"
            ) from error
        except NotFound as error:
            raise ConfigurationError(f"bucket {self.name} of {what} must exist; got 404. Check the name") from error
        except GoogleAuthError as error:
            raise ConfigurationError(
                f"Google Cloud credentials must be there to read {what}; got {type(error).__name__}. Use Workload Identity,"
                " or run gcloud auth application-default login"
            ) from error
        except GoogleAPICallError as error:
            raise _unexpected(what, error.code) from error

    def _file(self, blob, name: str) -> BucketFile:
        digests = {"crc32c": hex_of_base64(blob.crc32c)} if blob.crc32c else {}
        if blob.md5_hash:
            digests["md5"] = hex_of_base64(blob.md5_hash)
        shown = f"gs://{self.name}/{blob.name}"
        expected = Expected(num_bytes=blob.size, digests=digests)
        return BucketFile(
            bucket=self,
            key=shown,
            shown=shown,
            name=name,
            object_name=blob.name,
            version=str(blob.generation),
            expected=expected,
        )


class S3Bucket:
    """A bucket of S3, SeaweedFS or MinIO; endpoint and credentials from the AWS environment variables."""

    def __init__(self, name: str) -> None:
        """Take a bucket's name; nothing is asked yet."""
        self.name = name
        self._made = None

    @property
    def _client(self):
        if self._made is None:
            import boto3
            from botocore.config import Config

            connect, read = _timeout()
            self._made = boto3.session.Session().client(
                "s3", config=Config(connect_timeout=connect, read_timeout=read, retries={"total_max_attempts": 1})
            )
        return self._made

    def find(self, name: str) -> BucketFile | None:
        """Return an object, or None."""
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self.name, Key=name)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise
        return self._file(name, name.rpartition("/")[2], head["ETag"], head["ContentLength"])

    def under(self, prefix: str, most: int) -> list[BucketFile]:
        """Return the objects under a prefix, `most` at most."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix, PaginationConfig={"MaxItems": most}
        )
        return [
            self._file(o["Key"], o["Key"][len(prefix) :], o["ETag"], o["Size"])
            for page in pages
            for o in page.get("Contents", ())
            if not o["Key"].endswith("/")
        ]

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        answer = self._client.get_object(Bucket=self.name, Key=name, IfMatch=version, Range=f"bytes={start}-{end - 1}")
        return answer["Body"].read()

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""
        from botocore.exceptions import (
            ClientError,
            HTTPClientError,
            IncompleteReadError,
            ResponseStreamingError,
        )

        if isinstance(error, ClientError):
            return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _PASSING_STATUS
        return isinstance(error, (HTTPClientError, IncompleteReadError, ResponseStreamingError))

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Turn the client's errors into the project's."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status in (401, 403):
                raise PermissionDeniedError(
                    f"{what} must be readable; got {status}. Grant s3:GetObject and s3:ListBucket on {self.name}"
                ) from error
            if status == 404:
                raise ConfigurationError(f"bucket {self.name} of {what} must exist; got 404. Check the name") from error
            raise _unexpected(what, status) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ConfigurationError(
                f"AWS credentials must be there to read {what}; got {type(error).__name__}. Mount them as AWS_ACCESS_KEY_ID"
                " and AWS_SECRET_ACCESS_KEY"
            ) from error
        except BotoCoreError as error:
            raise ConfigurationError(
                f"{what} must be readable; got {type(error).__name__}. Check AWS settings"
            ) from error

    def _file(self, key: str, name: str, etag: str, size: int) -> BucketFile:
        shown = f"s3://{self.name}/{key}"
        # An ETag is the content's MD5 unless the object was uploaded in parts or encrypted; S3 does not say which.
        return BucketFile(
            bucket=self,
            key=shown,
            shown=shown,
            name=name,
            object_name=key,
            version=etag,
            expected=Expected(num_bytes=size),
        )


def find_files(uri: str, scheme: str, bucket_name: str, path: str, *, most: int) -> list[BucketFile]:
    """Return the object a URI names, or else those under it.

    Raises:
        ParameterError: There is neither, or more than `most`.
    """
    bucket = open_bucket(scheme, bucket_name)
    name = path.lstrip("/")
    if name and not name.endswith("/"):
        found = repeated(bucket, uri, lambda: bucket.find(name))
        if found:
            return [found]
    prefix = name.rstrip("/") + "/" if name.strip("/") else ""
    files = repeated(bucket, uri, lambda: bucket.under(prefix, most + 1))
    if not files:
        raise ParameterError(f"source {uri} must exist; got no such object, and none under it. Check the URI")
    if len(files) > most:
        raise ParameterError(f"source {uri} must hold at most {most:,} objects; got more. Upload one zip instead")
    return files


def _unexpected(what: str, status: int | None) -> FashionTuningError:
    if status == 412:
        return TryAgainError(f"{what} must stay as it is while it is read; it was replaced. Run again")
    return UnavailableError(f"{what} must be readable; got HTTP {status}. Run again")


def _timeout() -> tuple[float, float]:
    return transfer.PATIENCE.connect_seconds, transfer.PATIENCE.read_seconds
