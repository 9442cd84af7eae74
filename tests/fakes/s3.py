"""An S3 server on loopback: moto's, one request at a time so that conditional writes are atomic, with planned faults."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.fakes.gcs import Fault

_CONFLICT = b"<Error><Code>%s</Code><Message>planned fault</Message></Error>"


class FakeS3:
    """The server, a context manager with one bucket.

    Args:
        bucket: Its name.
        ignore_preconditions: Behave like servers that overwrite whatever `If-None-Match` says.

    Attributes:
        url: For `AWS_ENDPOINT_URL_S3`.
        requests: (method, path) of every request.
    """

    def __init__(self, bucket: str = "bucket", *, ignore_preconditions: bool = False) -> None:
        self.bucket = bucket
        self.ignore_preconditions = ignore_preconditions
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> Self:
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        s3_backends["123456789012"]["aws"].reset()
        s3_backends["123456789012"]["aws"].create_bucket(self.bucket, "us-east-1")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def fail(self, *faults: Fault) -> None:
        """Add faults of kind `status` to the plan."""
        self.faults.extend(faults)

    def objects(self) -> dict[str, bytes]:
        """Return the content of every object by key."""
        with self._lock:
            keys = s3_backends["123456789012"]["aws"].buckets[self.bucket].keys
            return {name: keys[name].value for name in keys}

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests.append((method, path))
            if self.ignore_preconditions:
                environ.pop("HTTP_IF_NONE_MATCH", None)
            fault = next(
                (f for f in self.faults if f.times and f.method in ("", method) and f.contains in path),
                None,
            )
            if fault is None:
                return list(self._moto(environ, start_response))
            fault.times -= 1
            if fault.when == "after":
                list(self._moto(environ, lambda *_: None))
        code = {403: b"AccessDenied", 409: b"ConditionalRequestConflict"}.get(fault.status, b"SlowDown")
        start_response(f"{fault.status} planned", [("Content-Type", "application/xml")])
        return [_CONFLICT % code]


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *arguments: Any) -> None:
        """Stay silent."""
