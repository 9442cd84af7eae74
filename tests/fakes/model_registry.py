"""Kubeflow's Model Registry on loopback, as far as registering needs it: the paths, fields and answers of its published OpenAPI.

Its answers were compared with those of a real server (kubeflow/model-registry of April 2026 on MariaDB).
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class FakeModelRegistry:
    """The server, a context manager.

    Args:
        token: What requests must bring; empty for none.

    Attributes:
        url: Its address.
        objects: What was created, by kind: `registered_models`, `model_versions`, `artifacts`.
        failing: Kinds whose creation fails, each once.
    """

    def __init__(self, token: str = "") -> None:
        self._token = token
        self.objects: dict[str, list[dict[str, Any]]] = {"registered_models": [], "model_versions": [], "artifacts": []}
        self.failing: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, target: str, body: dict[str, Any], token: str) -> tuple[int, dict[str, Any]]:
        """Return status and body of one answer."""
        if self._token and token != f"Bearer {self._token}":
            return 401, {"code": "Unauthorized", "message": "no token"}
        parts = urlsplit(target)
        path = re.fullmatch(r"/api/model_registry/v1(?:alpha3)?/(\w+)(?:/(\d+)/artifacts)?", parts.path)
        if path is None:
            return 404, {}
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if method == "POST":
            kind = "artifacts" if path[2] else path[1]
            if kind in self.failing:
                self.failing.remove(kind)
                return 500, {"code": "Internal", "message": "planned"}
            made = {**body, "id": str(len(self.objects[kind]) + 1), "lastUpdateTimeSinceEpoch": "1795664810656"}
            self.objects[kind].append({**made, "parent": path[2] or body.get("registeredModelId", "")})
            return 201, made
        if path[1] == "registered_models":
            items = self.objects["registered_models"]
            return 200, {"items": items, "nextPageToken": "", "pageSize": 1, "size": len(items)}
        kind = {"model_artifact": "artifacts"}.get(path[1], f"{path[1]}s")
        for item in self.objects[kind]:
            if item["name"] == asked["name"] and item["parent"] == asked.get("parentResourceId", ""):
                return 200, {name: value for name, value in item.items() if name != "parent"}
        return 404, {"code": "Not Found", "message": f"no {kind} found for name={asked['name']}"}

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "{}")
                status, answer = fake.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815 - as http.server calls it

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
