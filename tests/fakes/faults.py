"""An HTTP server on loopback whose connections and answers go wrong as planned; what it serves is up to its subclass."""

import abc
import contextlib
import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "content-length"}


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: `status` (an error answer), `drop` (connection closed without an answer), `reset` (the same, by a reset),
            `truncate` (half of the body, then closed), `break` (half of the body, then reset), `corrupt` (one byte of
            the body flipped, checksums right), `stall` (an answer after `seconds`), `slow` (an answer at
            `bytes_per_second`), `page` (a page of HTML with status 200), `unhashed` (checksums and ETag left out),
            `upload-reset` (reset when half of the request's body has come), `upload-stall` (no more is read for
            `seconds` then), `upload-slow` (the body is read at `bytes_per_second`), `upload-corrupt` (one byte of the
            request's content flipped).
        status: HTTP status of `status`.
        when: `before` the request takes effect, or `after`.
        method: Only requests with this method; `LIST` is a GET of a listing, `GET` one of an object; empty for all.
        contains: Only requests whose path or object name contains this.
        times: How often; -1 for ever.
        skip: Matching requests that pass before the first fault.
        seconds: Of `stall`.
        bytes_per_second: Of a slow link.
        body: Of `status`; the provider's own error by default.
    """

    kind: str
    status: int = 503
    when: str = "before"
    method: str = ""
    contains: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    bytes_per_second: float = 0.0
    body: bytes | None = None


@dataclass
class Answer:
    """What a server says."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FaultyServer(abc.ABC):
    """The server, a context manager.

    Args:
        delay_seconds: Added to each answer.
        certificate: File with key and certificate; plain HTTP without one.

    Attributes:
        url: Where it listens.
        requests: (method, path with query) of every request, in order; a listing's method is `LIST`.
        faults: The plan.
    """

    def __init__(self, *, delay_seconds: float = 0.0, certificate: str = "") -> None:
        self.delay_seconds = delay_seconds
        self.certificate = certificate
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._random: tuple[random.Random, float, tuple[Fault, ...]] | None = None
        self._port = 0
        self._held: list[socket.socket] = []
        self._servers: list[_Server] = []
        self.is_frozen = threading.Event()
        self.hangs_up = False

    def __enter__(self) -> Self:
        self._listen()
        self.url = f"{'https' if self.certificate else 'http'}://127.0.0.1:{self._port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.go("on")
        self._close()
        for server in self._servers:
            server.close_connections()

    @abc.abstractmethod
    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Return the answer to a request after it took effect; its method is what `kind` made of it."""

    def error(self, status: int) -> Answer:
        """Return the provider's error answer for a planned status."""
        return Answer(status, b"planned fault", {"Content-Type": "text/plain"})

    def kind(self, method: str, path: str) -> str:  # noqa: ARG002 (subclasses look at it)
        """Return the method by which faults choose a request."""
        return method

    def go(self, state: str) -> None:
        """Change how the server meets connections.

        Args:
            state: `on`; `refuse` (nothing listens, open connections are closed); `silent` (connections are neither
                accepted nor answered, as behind a network that drops packets); `hang up` (new connections are closed as
                soon as they are made, before any handshake).
        """
        if self._held:
            for held in self._held:
                held.close()
            self._held = []
            self._listen()
        self.is_frozen.clear()
        self.hangs_up = state == "hang up"
        if self.hangs_up:
            self._server.close_connections()
        if state == "refuse":
            self._close()
            # Holds the port without listening on it.
            self._held = [_bound(self._port)]
        elif state == "silent":
            self.is_frozen.set()
            self._close(keep_connections=True)
            listener = _bound(self._port)
            listener.listen(0)
            self._held = [listener]
            for _ in range(2):  # fill its queue, so that the kernel drops whoever else wants to connect
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", self._port))
                self._held.append(waiting)

    def fail(self, *faults: Fault) -> None:
        """Add faults to the plan; the first that matches a request is used."""
        with self.lock:
            self.faults.extend(faults)

    def fail_randomly(self, rate: float, seed: int, faults: Iterable[Fault]) -> None:
        """Let one of the faults hit each request with this probability."""
        self._random = (random.Random(seed), rate, tuple(faults))

    def heal(self) -> None:
        """Drop every planned and random fault."""
        with self.lock:
            self.faults.clear()
            self._random = None

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault that hits this request, counting it; None for none."""
        with self.lock:
            for fault in self.faults:
                if fault.times == 0 or fault.method not in ("", method) or fault.contains not in unquote(path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
            if self._random:
                generator, rate, faults = self._random
                if generator.random() < rate:
                    return generator.choice(faults)
            return None

    def _listen(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.fake = self
        self._servers.append(self._server)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def _close(self, *, keep_connections: bool = False) -> None:
        self._server.shutdown()
        if not keep_connections:
            self._server.close_connections()
        self._server.server_close()
        self._thread.join(5)


class Relay(FaultyServer):
    """Stands before a real server and passes on what is not planned to go wrong.

    Args:
        target: URL of the server.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(**options)
        self._target = urlsplit(target)

    def kind(self, method: str, path: str) -> str:
        """Tell listings of both providers from reads."""
        parts = urlsplit(path)
        is_listing = "list-type=" in parts.query or re.fullmatch(r"/storage/v1/b/[^/]+/o", parts.path)
        return "LIST" if method == "GET" and is_listing else method

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Pass a request on."""
        connection = http.client.HTTPConnection(self._target.hostname, self._target.port, timeout=120)
        try:
            connection.putrequest(
                "GET" if method == "LIST" else method, path, skip_host=True, skip_accept_encoding=True
            )
            for key, value in headers.items():
                if key not in _HOP_BY_HOP:
                    connection.putheader(key, value)
            if body or method in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body)))
            with contextlib.suppress(OSError):  # it may answer before it has read everything, and hang up
                connection.endheaders(body)
            response = connection.getresponse()
            kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
            if method == "HEAD" and response.getheader("Content-Length"):
                kept["Content-Length"] = response.getheader("Content-Length")
            return Answer(response.status, response.read(), kept)
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True
    fake: FaultyServer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.fake.hangs_up:
            self.shutdown_request(request)
            return
        self._open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def close_connections(self) -> None:
        """End what clients keep alive, so that no thread outlives the server."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: killed and impatient clients are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""

    def handle_expect_100(self) -> bool:
        """Let the client send its body, at once."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _handle(self) -> None:
        fake = self.server.fake
        headers = {key.lower(): value for key, value in self.headers.items()}
        method = fake.kind(self.command, self.path)
        size = int(headers.get("content-length") or 0)
        start = self._chunked() if headers.get("transfer-encoding", "").lower() == "chunked" else b""
        # Names of uploaded objects stand at the beginning of the body.
        begun = start or self.rfile.read(min(size, 2000))
        shown = begun.decode("latin-1") if method in ("POST", "PUT") else ""
        with fake.lock:
            fake.requests.append((method, self.path))
        fault = fake.take_fault(method, self.path + shown)
        kind = fault.kind if fault else ""
        if kind.startswith("upload-") and kind != "upload-corrupt":
            body = self._slow_body(fault, begun, size)
            if body is None:
                return None
        else:
            body = start or begun + self.rfile.read(size - len(begun))
        if kind == "upload-corrupt" and body:
            # Behind the metadata of an upload in one request, before the end of its last part.
            place = (
                max(len(body) - 60, 0) if b"multipart" in headers.get("content-type", "").encode() else len(body) - 1
            )
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        self._wait(fake.delay_seconds)
        if fault and fault.when == "before":
            if kind == "stall":
                self._wait(fault.seconds)
            elif kind in ("drop", "reset"):
                return self._hang_up(reset=kind == "reset")
            elif kind == "status":
                return self._send(self._error(fault))
            elif kind == "page":
                return self._send(Answer(200, PAGE, {"Content-Type": "text/html; charset=utf-8"}))
        return self._go_wrong(fake.answer(method, self.path, headers, body), fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 (names that http.server looks up)

    def _go_wrong(self, answer: Answer, fault: Fault | None) -> None:
        """Send an answer, unless the fault has something else in mind."""
        kind = fault.kind if fault else ""
        if fault and fault.when == "after":
            if kind in ("drop", "reset"):
                return self._hang_up(reset=kind == "reset")
            if kind == "status":
                answer = self._error(fault)
            elif kind == "stall":
                self._wait(fault.seconds)
            elif kind == "page":
                answer = Answer(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        if kind == "corrupt" and answer.status in (200, 206) and answer.body:
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 0xFF])
        if kind == "unhashed":
            answer.headers = {k: v for k, v in answer.headers.items() if k.lower() not in ("x-goog-hash", "etag")}
        return self._send(
            answer,
            cut=kind if kind in ("truncate", "break") else "",
            bytes_per_second=fault.bytes_per_second if kind == "slow" else 0.0,
        )

    def _error(self, fault: Fault) -> Answer:
        answer = self.server.fake.error(fault.status)
        if fault.body is not None:
            answer.body = fault.body
        if self.command == "HEAD":
            answer.body = b""
        return answer

    def _slow_body(self, fault: Fault, begun: bytes, size: int) -> bytes | None:
        """Read a body as a bad link lets it through; None where the connection is gone."""
        half = 0 if fault.kind == "upload-slow" else size // 2
        body = begun + self.rfile.read(max(half - len(begun), 0))
        if fault.kind == "upload-reset":
            self._hang_up(reset=True)
            return None
        if fault.kind == "upload-stall":
            self._wait(fault.seconds)
        while fault.kind == "upload-slow" and len(body) < size:
            piece = self.rfile.read(min(int(fault.bytes_per_second / 20) or 1, size - len(body)))
            body += piece
            if not piece:
                return None
            self._wait(len(piece) / fault.bytes_per_second)
        return body + self.rfile.read(size - len(body))

    def _chunked(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _wait(self, seconds: float) -> None:
        """Wait, and as long as the server is silent."""
        time.sleep(seconds)
        while self.server.fake.is_frozen.is_set():
            time.sleep(0.05)

    def _hang_up(self, *, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in (self.rfile, self.wfile, self.connection):
                end.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer, *, cut: str = "", bytes_per_second: float = 0.0) -> None:
        self._wait(0)
        self.send_response(answer.status)
        is_head = self.command == "HEAD"
        for key, value in answer.headers.items():
            if key.lower() != "content-length":
                self.send_header(key, value)
        length = answer.headers.get("Content-Length", "0") if is_head else str(len(answer.body))
        if answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        body = b"" if is_head else answer.body[: len(answer.body) // 2] if cut else answer.body
        step = max(int(bytes_per_second / 20), 1) if bytes_per_second else len(body) or 1
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
            if bytes_per_second:
                time.sleep(min(step, len(body) - start) / bytes_per_second)
        self.wfile.flush()
        if cut:
            self._hang_up(reset=cut == "break")


def _bound(port: int) -> socket.socket:
    """Return a socket that has a port of loopback and does not listen."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
