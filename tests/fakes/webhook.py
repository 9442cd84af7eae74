"""A webhook's receiver on loopback that keeps what it is told, and fails as planned.

with Webhook() as hook:
    post(hook.url, ...)
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """The receiver, a context manager.

    Args:
        path: Secret part of its address.

    Attributes:
        url: Its address.
        statuses: What the next requests are answered with; 200 when it is empty.
        stall_seconds: How long every answer takes.
        bodies: Of every request that arrived, refused ones included.
        content_types: Of the same.
    """

    def __init__(self, path: str = "/hook") -> None:
        self.path, self.statuses, self.stall_seconds = path, [], 0.0
        self.bodies: list[Any] = []
        self.content_types: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.path}"

    def __enter__(self) -> Self:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                hook.content_types.append(self.headers["Content-Type"])
                time.sleep(hook.stall_seconds)
                known = self.path == hook.path
                self.send_response((hook.statuses.pop(0) if hook.statuses else 200) if known else 404)
                self.send_header("Location", f"http://127.0.0.1:9{hook.path}")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
