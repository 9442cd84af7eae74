"""An S3 server on loopback: moto's, one request at a time so that conditional writes are atomic, with planned faults."""

import base64
import hashlib
from typing import Any, Self
from urllib.parse import urlsplit

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.fakes.faults import Answer, FaultyServer

_CODES = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    501: "NotImplemented",
}


class FakeS3(FaultyServer):
    """The server, a context manager with one bucket.

    Args:
        bucket: Its name.
        ignore_preconditions: Behave like servers that overwrite whatever `If-None-Match` says.
        page_size: Most entries of one listing answer.
        options: Of `FaultyServer`.

    Attributes:
        url: For `AWS_ENDPOINT_URL_S3`.
        ignore_part_numbers: Behave like servers that answer for the whole object when they are asked for a part.
    """

    def __init__(
        self, bucket: str = "bucket", *, ignore_preconditions: bool = False, page_size: int = 1000, **options: Any
    ) -> None:
        super().__init__(**options)
        self.bucket = bucket
        self.ignore_preconditions = ignore_preconditions
        self.page_size = page_size
        self.ignore_part_numbers = False
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> Self:
        super().__enter__()
        s3_backends["123456789012"]["aws"].reset()
        s3_backends["123456789012"]["aws"].create_bucket(self.bucket, "us-east-1")
        return self

    def objects(self) -> dict[str, bytes]:
        """Return the content of every object by key."""
        with self.lock:
            keys = s3_backends["123456789012"]["aws"].buckets[self.bucket].keys
            # A request may add or remove one meanwhile.
            return {name: key.value for name in list(keys) if (key := keys.get(name)) is not None}

    def kind(self, method: str, path: str) -> str:
        """Tell listings from reads."""
        return "LIST" if method == "GET" and "list-type=" in urlsplit(path).query else method

    def error(self, status: int) -> Answer:
        """Return a planned error as S3 words it."""
        return planned_error(status)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Return moto's answer, after the checks of uploaded content that moto leaves out."""
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if headers.get("content-md5", md5) != md5:
            return _error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
        if self.ignore_preconditions:
            headers.pop("if-none-match", None)
        if self.ignore_part_numbers:
            path = path.replace("partNumber=1", "")
        if method == "LIST":
            method = "GET"
            path += f"&max-keys={self.page_size}" if "max-keys=" not in path else ""
        parts = urlsplit(path)
        builder = EnvironBuilder(
            path=parts.path,
            query_string=parts.query,
            method=method,
            base_url=self.url,
            data=body,
            headers={k: v for k, v in headers.items() if k not in ("expect", "host", "transfer-encoding")},
        )
        with self.lock:
            rows, status, answered = run_wsgi_app(self._moto, builder.get_environ(), buffered=True)
            return Answer(int(status.split()[0]), b"".join(rows), dict(answered.items()))


def planned_error(status: int) -> Answer:
    """Return a planned error as S3 words it."""
    return _error(status, _CODES.get(status, "SlowDown" if status >= 500 else "Teapot"), "planned fault")


def _error(status: int, code: str, message: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml"})
