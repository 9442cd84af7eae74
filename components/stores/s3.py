"""This store lies in an S3-compatible bucket (S3, MinIO, SeaweedFS) and creates objects by conditional writes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import urllib3
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from components.stores.aws_environment import check_aws_environment
from components.stores.bucket import BucketStore, Found, timeouts
from components.stores.contract import Stat
from components.stores.digests import new_digest, parts_md5
from components.stores.failures import (
    CertificateError,
    CorruptedError,
    Failure,
    ForeignAnswerError,
    HeaderError,
    Rule,
    VanishedError,
)


class BusyTokenError(Exception):
    """Stands in the rules for credentials that could not be fetched because nobody answered, or a busy server did."""


RULES = (
    Rule(failure=Failure.UNTRUSTED, errors=(CertificateError,), sign="self-signed, expired, of another host, or none"),
    Rule(failure=Failure.CREDENTIALS, errors=(HeaderError,), sign="a key that is no header"),
    Rule(failure=Failure.CORRUPTED, errors=(CorruptedError,), sign="SHA-256 or MD5 differs"),
    Rule(
        failure=Failure.CORRUPTED, statuses=(400,), codes=("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody")
    ),
    Rule(failure=Failure.BUSY, statuses=(400,), codes=("RequestTimeout",)),
    Rule(failure=Failure.UNSUPPORTED, statuses=(501,), codes=("NotImplemented",)),
    Rule(failure=Failure.BUSY, statuses=(408, 409, 425, 429, 499, *range(500, 600))),
    Rule(
        failure=Failure.UNREACHABLE,
        errors=(
            boto.ConnectionError,
            boto.HTTPClientError,
            boto.IncompleteReadError,
            boto.ResponseStreamingError,
            # What reading a body lets through.
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ),
        sign="refused, reset, timed out, cut off, unknown host",
    ),
    Rule(failure=Failure.BUSY, errors=(BusyTokenError,), sign="metadata server or token endpoint out of reach"),
    Rule(
        failure=Failure.FOREIGN,
        errors=(
            ForeignAnswerError,
            VanishedError,
            ResponseParserError,
            json.JSONDecodeError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
        ),
        statuses=range(300, 400),
        sign="HTML, damaged or other XML, content without ETag",
    ),
    Rule(
        failure=Failure.CREDENTIALS,
        errors=(
            boto.NoCredentialsError,
            boto.PartialCredentialsError,
            boto.CredentialRetrievalError,
            boto.TokenRetrievalError,
        ),
        statuses=(401,),
        sign="none found",
    ),
    Rule(
        failure=Failure.CREDENTIALS,
        codes=(
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "TokenRefreshRequired",
            "InvalidIdentityToken",
        ),
    ),
    Rule(
        failure=Failure.SETTINGS,
        errors=(
            boto.InvalidConfigError,
            boto.InvalidProxiesConfigError,
            boto.EndpointProviderError,
            boto.ProfileNotFound,
            boto.ConfigParseError,
            boto.ParamValidationError,
            ValueError,
        ),
        sign="an endpoint, profile or proxy that cannot be used",
    ),
    Rule(failure=Failure.FORBIDDEN, statuses=(403,)),
    Rule(failure=Failure.NO_BUCKET, statuses=(404,), codes=("NoSuchBucket",)),
    Rule(failure=Failure.NO_BUCKET, statuses=(404, 410), actions=("creating", "writing", "listing")),
    Rule(failure=Failure.NO_OBJECT, statuses=(404, 410)),
    Rule(failure=Failure.CHANGED, statuses=(412, 416)),
    Rule(failure=Failure.REFUSED, errors=(boto.BotoCoreError,), statuses=range(1, 500)),
)

_REMOTE_CREDENTIALS = ("container-role", "iam-role")
"""Providers of credentials that ask a server of the node or the cluster."""

_STEPS = (1.0, 2.0, 4.0, 6.0, 10.0, 20.0, 40.0, 60.0)
"""Time-outs that clients are made with, seconds."""

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_PARTS_MD5 = re.compile(r'"?([0-9a-f]{32})-(\d{1,5})"?')


class S3Store(BucketStore):
    """Keys are object keys under a prefix of a bucket; endpoint and credentials come from the environment.

    Each object carries its SHA-256, since not every server checks sums. Of objects that somebody else put there the
    ETag tells the MD5, or the MD5 of the parts' MD5 where they were uploaded in parts, and some have a checksum. What
    has none of them (encrypted with a key of its own, say) counts as whole if it arrives twice the same.

    Args:
        bucket: Name of the bucket.
        prefix: Without slashes at its ends; empty for the whole bucket.
        deadline_seconds: How long calls are repeated.
        connection: The connection of another store, to share it; by default a new one is made.
            `AWS_ENDPOINT_URL_S3` points it at another server.
    """

    scheme = "s3"
    rules = RULES
    remedies = {  # noqa: RUF012 (a constant)
        Failure.UNTRUSTED: "Give the CA's file in AWS_CA_BUNDLE, or correct the endpoint",
        Failure.CREDENTIALS: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mount or renew the secret",
        Failure.FORBIDDEN: "Grant the permission to the access key's owner",
        Failure.SETTINGS: "Correct AWS_ENDPOINT_URL and the other AWS settings",
        Failure.NO_BUCKET: "Create it or correct the URI",
        Failure.CHANGED: "Run again",
        Failure.UNSUPPORTED: "Use a store with conditional writes",
        Failure.REFUSED: "Check the bucket and the AWS settings",
    }

    def _connect(self) -> Connection:
        return Connection()

    def _put(self, name: str, data: bytes, nonce: str, left: float, *, if_absent: bool) -> None:
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        answer = self._client(left, len(data)).put_object(
            Bucket=self._bucket,
            Key=name,
            Body=data,  # the client sends it in blocks, each within the connection's time-out
            ContentType="application/json" if name.endswith(".json") else "application/octet-stream",
            ContentMD5=base64.b64encode(md5).decode(),
            CacheControl="no-store",
            Metadata={"nonce": nonce, "sha256": hashlib.sha256(data).hexdigest()},
            **({"IfNoneMatch": "*"} if if_absent else {}),
        )
        if not answer.get("ETag"):
            raise ForeignAnswerError("an answer to an upload without an ETag")
        got = _digests(answer).get("md5", md5.hex())
        if got != md5.hex():
            raise CorruptedError(f"MD5 must be {md5.hex()}; got {got}")

    def _get(self, name: str, left: float) -> bytes:
        client = self._client(left)
        answer = client.get_object(Bucket=self._bucket, Key=name)
        data = _body(answer)
        digests = _digests(answer)
        if not digests and data != _body(client.get_object(Bucket=self._bucket, Key=name, IfMatch=answer["ETag"])):
            raise CorruptedError("an object without a digest must arrive twice the same; got two contents")
        for algorithm, expected in digests.items():
            digest = new_digest(algorithm)
            digest.update(data)
            if digest.hexdigest() != expected:
                raise CorruptedError(
                    f"{algorithm.upper().replace('SHA', 'SHA-')} must be {expected}; got {digest.hexdigest()}"
                )
        return data

    def _get_range(self, name: str, start: int, end: int, version: str, left: float) -> bytes:
        answer = self._client(left).get_object(
            Bucket=self._bucket, Key=name, IfMatch=version, Range=f"bytes={start}-{end - 1}"
        )
        data = _body(answer)
        if len(data) != end - start:
            raise ForeignAnswerError(f"{len(data):,} bytes in place of {end - start:,}")
        return data

    def _find(self, name: str, left: float) -> Found | None:
        try:
            answer = self._client(left).head_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")
        except boto.ClientError as error:
            if self._failure(error, "looking up") is not Failure.NO_OBJECT:
                raise
            return None
        digests = _digests(answer) or self._parts(name, answer, left)
        stat = Stat(size=answer["ContentLength"], version=answer["ETag"], digests=digests)
        return Found(stat, answer["Metadata"].get("nonce", ""))

    def _parts(self, name: str, answer: dict[str, Any], left: float) -> dict[str, str]:
        """Return the digest of an object that was uploaded in parts of one size, if the server names it."""
        match = _PARTS_MD5.fullmatch(answer["ETag"])
        if not match or _is_encrypted(answer):
            return {}
        first = self._client(left).head_object(Bucket=self._bucket, Key=name, PartNumber=1)["ContentLength"]
        size, num_parts = answer["ContentLength"], int(match[2])
        # Some servers answer with the length of the whole; parts of different sizes cannot be told.
        if not first or -(-size // first) != num_parts:
            return {}
        return {parts_md5(first): f"{match[1]}-{num_parts}"}

    def _entries(self, prefix: str, left: float) -> Iterator[tuple[str, Stat]]:
        pages = self._client(left).get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            if "IsTruncated" not in page:
                raise ForeignAnswerError("a listing that does not say whether it is whole")
            for row in page.get("Contents", ()):
                yield row["Key"], Stat(size=row["Size"], version=row["ETag"], digests=_digests(row))

    def _remove(self, name: str, left: float) -> None:
        answer = self._client(left).delete_object(Bucket=self._bucket, Key=name)["ResponseMetadata"]
        if answer["HTTPStatusCode"] != 204 and answer["HTTPHeaders"].get("content-type", "").startswith("text/html"):
            raise ForeignAnswerError("a page of HTML")

    def _is_whole(self, stat: Stat, data: bytes) -> bool:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return stat.size == len(data) and stat.digests.get("md5", md5) == md5

    def _answer(self, error: Exception) -> tuple[int, str, str]:
        if isinstance(error, boto.ClientError):
            answer = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(answer.get("Code", ""))
            return status, code, f"{code} {answer.get('Message', '')}".strip()
        return 0, "", f"{type(error).__name__}: {error}"

    def _failure(self, error: Exception, action: str) -> Failure | None:
        is_remote = isinstance(error, boto.CredentialRetrievalError) and error.kwargs["provider"] in _REMOTE_CREDENTIALS
        if isinstance(error, boto.MetadataRetrievalError) or is_remote:
            error = BusyTokenError()
        return super()._failure(error, action)

    def _client(self, left: float, num_bytes: int = 0) -> Any:
        return self._connection.client(*timeouts(left, num_bytes))


class Connection:
    """The clients, made on first use; shared by all stores that were derived from one."""

    def __init__(self) -> None:
        self._session: boto3.session.Session | None = None
        self._clients: dict[tuple[float, float], Any] = {}
        self._lock = threading.Lock()

    def client(self, connect_seconds: float, read_seconds: float) -> Any:
        """Return the client with about these time-outs, which the library takes only when it is made."""
        key = (_rounded(connect_seconds), _rounded(read_seconds))
        with self._lock:
            if self._session is None:
                check_aws_environment()
                # More threads than pooled connections are no news.
                logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
                self._session = boto3.session.Session()
            if key not in self._clients:
                config = botocore.config.Config(
                    connect_timeout=key[0],
                    read_timeout=key[1],
                    max_pool_connections=32,
                    retries={"total_max_attempts": 1},
                    # Trailing checksums are not understood by every server; SHA-256 travels as metadata instead.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                )
                # Any region does for servers other than Amazon's.
                region = self._session.region_name or "us-east-1"
                self._clients[key] = self._session.client("s3", config=config, region_name=region)
            return self._clients[key]


def _rounded(seconds: float) -> float:
    """Round down to one of a few values, so that there are few clients."""
    return max(step for step in _STEPS if step <= max(seconds, _STEPS[0]))


def _body(answer: dict[str, Any]) -> bytes:
    """Return the content of an answer that is the store's."""
    with answer["Body"] as body:
        data = body.read()
    if not answer.get("ETag"):
        raise ForeignAnswerError("content without an ETag")
    return data


def _digests(answer: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the object that an answer or a row of a listing contains."""
    digests = {}
    if sha256 := answer.get("Metadata", {}).get("sha256"):
        digests["sha256"] = sha256
    if not _is_encrypted(answer) and (match := _MD5.fullmatch(answer.get("ETag", ""))):
        digests["md5"] = match[1]
    for name in ("CRC32", "CRC32C", "SHA1", "SHA256"):
        value = answer.get(f"Checksum{name}", "")
        if value and "-" not in value:  # of the whole object, not of its parts
            digests.setdefault(name.lower(), base64.b64decode(value).hex())
    return digests


def _is_encrypted(answer: dict[str, Any]) -> bool:
    """Return whether the object is encrypted in a way that makes its ETag no digest of the content."""
    return "kms" in answer.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in answer
