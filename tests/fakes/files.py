"""An HTTP file server on loopback, with validators, ranges and planned faults.

with FileServer({"/a.zip": data}) as server:
    server.fail(Failure("truncate"))
    fetch(server.url + "/a.zip")
"""

import hashlib
import re
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Failure:
    """One thing that goes wrong.

    Attributes:
        kind: `status`, `truncate` (the connection ends in the middle of the body), `drop` (no answer), `stall` (nothing
            more after the middle), `corrupt` (one byte flipped), `wrong_range` (an answer to another range), `lie` (a
            length that is too large).
        status: HTTP status of `status`.
        times: How often; -1 for ever.
        contains: Only requests whose path contains this.
        keep: Bytes of the body that still arrive before `truncate` and `stall`; -1 means half.
        seconds: Of `stall`.
        headers: Further headers of `status`.
    """

    kind: str
    status: int = 503
    times: int = 1
    contains: str = ""
    keep: int = -1
    seconds: float = 5.0
    headers: tuple[tuple[str, str], ...] = ()


class FileServer:
    """The server, a context manager.

    Args:
        files: Content by path.
        validators: Send ETags and honour `If-None-Match` and `If-Range`.
        ranges: Honour `Range`.
        lengths: Send `Content-Length`.
        headers: Sent with every file.
        authorization: Value that the request's `Authorization` must have.
        bytes_per_second: Slows bodies down.

    Attributes:
        url: Without a slash at the end.
        requests: (path, headers with lower-case names) of every request, in order.
        redirects: Location by path.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        validators: bool = True,
        ranges: bool = True,
        lengths: bool = True,
        headers: dict[str, str] | None = None,
        authorization: str = "",
        bytes_per_second: float = 0.0,
    ) -> None:
        self.files, self.validators, self.ranges, self.lengths = files, validators, ranges, lengths
        self.headers, self.authorization, self.bytes_per_second = headers or {}, authorization, bytes_per_second
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.redirects: dict[str, str] = {}
        self.failures: list[Failure] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def fail(self, *failures: Failure) -> None:
        """Add to the plan; the first that matches a request is used."""
        self.failures.extend(failures)

    def take_failure(self, path: str) -> Failure | None:
        """Return what goes wrong with this request, counting it."""
        with self.lock:
            for failure in self.failures:
                if failure.times and failure.contains in path:
                    failure.times -= 1
                    return failure
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: FileServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: killed and impatient clients are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Answer."""
        fake = self.server.fake
        headers = {key.lower(): value for key, value in self.headers.items()}
        with fake.lock:
            fake.requests.append((self.path, headers))
        failure = fake.take_failure(self.path)
        if failure and failure.kind == "drop":
            return self._hang_up()
        if failure and failure.kind == "status":
            return self._send(failure.status, b"planned", dict(failure.headers))
        if self.path in fake.redirects:
            return self._send(302, b"", {"Location": fake.redirects[self.path]})
        if fake.authorization and headers.get("authorization") != fake.authorization:
            return self._send(401, b"", {})
        if self.path not in fake.files:
            return self._send(404, b"", {})
        return self._send_file(fake.files[self.path], headers, failure)

    def _send_file(self, data: bytes, headers: dict[str, str], failure: Failure | None) -> None:
        fake = self.server.fake
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        answer = {"ETag": etag} if fake.validators else {}
        answer |= fake.headers
        if fake.validators and headers.get("if-none-match") == etag:
            return self._send(304, b"", answer, length=False)
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if asked and fake.ranges and headers.get("if-range", etag) == etag:
            start = int(asked[1])
            if start >= len(data):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            shown = start + 7 if failure and failure.kind == "wrong_range" else start
            answer["Content-Range"] = f"bytes {shown}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if failure and failure.kind == "corrupt":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        return self._send(status, body, answer, length=fake.lengths, failure=failure)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, length: bool = True, failure: Failure | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if length:
            extra = 1000 if failure and failure.kind == "lie" else 0
            self.send_header("Content-Length", str(len(body) + extra))
        self.end_headers()
        if failure and failure.kind in ("truncate", "stall"):
            self._write(body[: failure.keep if failure.keep >= 0 else len(body) // 2])
            if failure.kind == "stall":
                self.server.fake.closing.wait(failure.seconds)
            return self._hang_up()
        return self._write(body)

    def _write(self, body: bytes) -> None:
        rate = self.server.fake.bytes_per_second
        try:
            if not rate:
                self.wfile.write(body)
                return
            step = max(int(rate / 50), 1)
            for start in range(0, len(body), step):
                if self.server.fake.closing.is_set():
                    return
                self.wfile.write(body[start : start + step])
                time.sleep(step / rate)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
