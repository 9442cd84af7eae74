"""This store lies in a Google Cloud Storage bucket and creates objects by generation preconditions."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import google.auth.exceptions
import google_crc32c
import requests
import urllib3
from google.api_core import exceptions as api
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from components.secret_values import check_google_key
from components.stores.bucket import BucketStore, Found, timeouts
from components.stores.contract import Stat
from components.stores.failures import (
    CertificateError,
    CorruptedError,
    Failure,
    ForeignAnswerError,
    HeaderError,
    Rule,
    VanishedError,
    causes,
    is_certificate,
)

_BLOCKS_FROM_BYTES = 2**16
"""A larger body is sent in blocks, each within the connection's time-out; one piece of bytes gets it as a whole."""

_SESSION = "PUT to an upload session"


class BusyTokenError(Exception):
    """Stands in the rules for credentials that could not be renewed because nobody answered, or a busy server did."""


RULES = (
    Rule(failure=Failure.UNTRUSTED, errors=(CertificateError,), sign="self-signed, expired, of another host, or none"),
    Rule(failure=Failure.CREDENTIALS, errors=(HeaderError,), sign="a token that is no header"),
    Rule(failure=Failure.BUSY, errors=(BusyTokenError,), sign="metadata server or token endpoint out of reach"),
    Rule(failure=Failure.RESTARTED, statuses=(404, 410), codes=(_SESSION,)),
    Rule(failure=Failure.CORRUPTED, errors=(CorruptedError, DataCorruption), sign="CRC32C differs"),
    Rule(
        failure=Failure.CORRUPTED,
        statuses=(400, 412),
        codes=("checksum", "CRC32C", "MD5", "crc32c", "md5"),
        actions=("creating", "writing"),
    ),
    Rule(failure=Failure.BUSY, statuses=(403,), codes=("rateLimitExceeded", "RateLimitExceeded")),
    Rule(failure=Failure.BUSY, statuses=(408, 425, 429, 499, *range(500, 600))),
    Rule(
        failure=Failure.UNREACHABLE,
        errors=(
            ConnectionError,
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            http.client.HTTPException,
            urllib3.exceptions.HTTPError,
            google.auth.exceptions.TransportError,
        ),
        sign="refused, reset, timed out, cut off, unknown host",
    ),
    Rule(
        failure=Failure.CREDENTIALS,
        errors=(google.auth.exceptions.GoogleAuthError,),
        statuses=(401,),
        sign="none found, or refused",
    ),
    Rule(
        failure=Failure.SETTINGS,
        errors=(requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL),
        sign="a URL that is none",
    ),
    Rule(
        failure=Failure.FOREIGN,
        errors=(
            ForeignAnswerError,
            VanishedError,
            requests.exceptions.InvalidJSONError,
            json.JSONDecodeError,
            UnicodeDecodeError,
            requests.TooManyRedirects,
            requests.exceptions.ContentDecodingError,
            # What the client stumbles over where JSON has another shape than the service's.
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ),
        statuses=range(300, 400),
        sign="HTML, damaged or other JSON, content without CRC32C",
    ),
    Rule(failure=Failure.FORBIDDEN, statuses=(403,)),
    Rule(failure=Failure.NO_BUCKET, statuses=(404,), codes=("bucket does not exist", "bucket is not found")),
    Rule(failure=Failure.NO_BUCKET, statuses=(404, 410), actions=("creating", "writing", "listing")),
    Rule(failure=Failure.NO_OBJECT, statuses=(404, 410)),
    Rule(failure=Failure.CHANGED, statuses=(412, 416)),
    Rule(failure=Failure.REFUSED, errors=(api.GoogleAPIError, requests.RequestException), statuses=range(1, 500)),
)


class GcsStore(BucketStore):
    """Keys are object names under a prefix of a bucket; credentials are those the environment offers.

    Args:
        bucket: Name of the bucket.
        prefix: Without slashes at its ends; empty for the whole bucket.
        deadline_seconds: How long calls are repeated.
        connection: The connection of another store to share; a new one is made by default.
    """

    scheme = "gs"
    rules = RULES
    remedies = {  # noqa: RUF012 (a constant)
        Failure.UNTRUSTED: "Give the CA's file in REQUESTS_CA_BUNDLE, or correct the endpoint",
        Failure.CREDENTIALS: "Bind the service account (Workload Identity) or set GOOGLE_APPLICATION_CREDENTIALS",
        Failure.FORBIDDEN: "Grant the permission to that principal",
        Failure.SETTINGS: "Correct STORAGE_EMULATOR_HOST and the proxy variables",
        Failure.NO_BUCKET: "Create it or correct the URI",
        Failure.CHANGED: "Run again",
        Failure.REFUSED: "Check the bucket",
    }

    def _connect(self) -> Connection:
        return Connection()

    def _put(self, name: str, data: bytes, nonce: str, left: float, *, if_absent: bool) -> None:
        blob = self._blob(name)
        blob.metadata = {"nonce": nonce}
        blob.cache_control = "no-store"
        blob.upload_from_string(
            data,
            content_type="application/json" if name.endswith(".json") else "application/octet-stream",
            if_generation_match=0 if if_absent else None,
            retry=None,
            timeout=timeouts(left, len(data)),
            checksum="crc32c",
        )
        if not blob.generation or not blob.crc32c:
            raise ForeignAnswerError("an answer to an upload without generation and checksum")
        if blob.crc32c != _crc32c(data):
            raise CorruptedError(f"CRC32C must be {_crc32c(data)}; got {blob.crc32c}")

    def _get(self, name: str, left: float) -> bytes:
        blob = self._blob(name)
        data = blob.download_as_bytes(raw_download=True, checksum=None, retry=None, timeout=timeouts(left))
        if not blob.crc32c:
            raise ForeignAnswerError("content without a checksum")
        if blob.crc32c != _crc32c(data):
            raise CorruptedError(f"CRC32C checksum must be {blob.crc32c}; got {_crc32c(data)}")
        return data

    def _get_range(self, name: str, start: int, end: int, version: str, left: float) -> bytes:
        blob = self._blob(name)
        data = blob.download_as_bytes(
            start=start,
            end=end - 1,
            raw_download=True,
            if_generation_match=int(version),
            checksum=None,
            retry=None,
            timeout=timeouts(left),
        )
        if not blob.crc32c or len(data) != end - start:
            raise ForeignAnswerError(f"{len(data):,} bytes of the store's in place of {end - start:,}")
        return data

    def _find(self, name: str, left: float) -> Found | None:
        blob = self._blob(name)
        try:
            blob.reload(retry=None, timeout=timeouts(left))
        except api.NotFound as error:
            if self._failure(error, "looking up") is not Failure.NO_OBJECT:
                raise
            return None
        return Found(_stat(blob), (blob.metadata or {}).get("nonce", ""))

    def _entries(self, prefix: str, left: float) -> Iterator[tuple[str, Stat]]:
        pages = self._connection.client().list_blobs(
            self._bucket,
            prefix=prefix,
            fields="kind,items(name,size,generation,crc32c,md5Hash),nextPageToken",
            retry=None,
            timeout=timeouts(left),
        )
        for page in pages.pages:
            if page.raw_page.get("kind") != "storage#objects":
                raise ForeignAnswerError("a listing that does not say what it is")
            for blob in page:
                yield blob.name, _stat(blob)

    def _remove(self, name: str, left: float) -> None:
        self._blob(name).delete(retry=None, timeout=timeouts(left))

    def _is_whole(self, stat: Stat, data: bytes) -> bool:
        return stat.size == len(data) and stat.digests["crc32c"] == _hex(_crc32c(data))

    def _answer(self, error: Exception) -> tuple[int, str, str]:
        response: Any = getattr(error, "response", None)
        if isinstance(error, api.GoogleAPICallError):
            # A status that the client does not know has no code of its own.
            status = int(error.code or getattr(response, "status_code", 0) or 0)
        elif isinstance(error, InvalidResponse):
            status = response.status_code
        else:
            return 0, "", f"{type(error).__name__}: {error}"
        said = str(getattr(error, "message", "") or error)
        code = f"{said} {getattr(response, 'text', '')[:2000]}"
        if getattr(getattr(response, "request", None), "method", "") == "PUT":
            code += f" {_SESSION}"
        return status, code, said

    def _failure(self, error: Exception, action: str) -> Failure | None:
        if isinstance(error, google.auth.exceptions.RefreshError) and (
            error.retryable or any(isinstance(e, google.auth.exceptions.TransportError) for e in causes(error))
        ):
            # As the client wraps what the metadata server of the node or a token endpoint met.
            error = BusyTokenError() if not is_certificate(error) else error
        return super()._failure(error, action)

    def _blob(self, name: str) -> storage.Blob:
        return self._connection.client().bucket(self._bucket).blob(name)


class Connection:
    """The client, made on first use; shared by all stores that were derived from one."""

    def __init__(self, client: storage.Client | None = None) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._is_prepared = False

    def client(self) -> storage.Client:
        """Return the client, made by the first call."""
        with self._lock:
            if self._client is None:
                # Off: one request per bucket that needs a permission of its own and serves tracing only.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about quota projects of personal credentials
                    check_google_key()
                    self._client = storage.Client()
            if not self._is_prepared:
                _mount(self._client._http)
                if (auth := getattr(self._client._http, "_auth_request", None)) is not None:
                    _mount(auth.session, _TokenAdapter)
                self._is_prepared = True
            return self._client


class _Adapter(HTTPAdapter):
    """Sends large bodies in blocks, so that time-outs measure progress; recognises answers that are not the store's."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request."""
        body = request.body
        if isinstance(body, bytes) and len(body) > _BLOCKS_FROM_BYTES:
            request = request.copy()
            request.body = io.BytesIO(body)  # type: ignore[assignment] # requests sends files as well
        response = super().send(request, *arguments, **options)
        is_html = response.ok and response.headers.get("Content-Type", "").startswith("text/html")
        # An empty answer may have any type; a stream is content, whose checksum tells whose it is.
        if is_html and not options.get("stream") and response.content.lstrip().startswith(b"<"):
            response.close()
            raise requests.exceptions.InvalidJSONError("a page of HTML", request=request)
        return response


class _TokenAdapter(_Adapter):
    """Distinguishes a busy token endpoint from one that refuses: the client repeats only some statuses."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request."""
        response = super().send(request, *arguments, **options)
        if response.status_code in (408, 429) or response.status_code >= 500:
            response.close()
            raise requests.ConnectionError(f"the token endpoint answered {response.status_code}")
        return response


def _mount(session: requests.Session | None, adapter: type[HTTPAdapter] = _Adapter) -> None:
    if isinstance(session, requests.Session):
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter(pool_maxsize=32))


def _stat(blob: storage.Blob) -> Stat:
    digests = {"crc32c": _hex(blob.crc32c)} if blob.crc32c else {}
    if blob.md5_hash:
        digests["md5"] = _hex(blob.md5_hash)
    # Servers made from the API's protocol buffers leave out a size of 0.
    return Stat(size=int(blob.size or 0), version=str(int(blob.generation)), digests=digests)


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()


def _crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
