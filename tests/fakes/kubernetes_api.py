"""A Kubernetes API server on loopback for reading: recorded shapes of a healthy cluster, which a test then breaks.

    with FakeKubernetes() as cluster:
        cluster.node["spec"]["taints"].append({"key": "team", "value": "a", "effect": "NoSchedule"})

It is a container registry as well: `/v2/<repository>/manifests/<tag>`, answering what `images` holds.
"""

import json
import re
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml

Struct = dict[str, Any]


class FakeKubernetes:
    """The server and its state, as plain documents of the API.

    Args:
        namespace: Where the objects are.
        certificate: File with its certificate and key; None for plain HTTP.

    Attributes:
        objects: By path below `/api/v1/namespaces/<namespace>/`, or by full path for everything else.
        texts: Plain text by full path, such as pods' logs.
        denied: Answer with this status what a path contains, for example `{"/secrets/": 403}`.
        images: `repository:tag` of every image in the registry.
        token: Bearer token to ask for; empty for none.
        stall_seconds: How long every answer takes.
        methods: Of every request that arrived.
    """

    def __init__(self, namespace: str = "kubeflow", certificate: Path | None = None) -> None:
        self.namespace, self._certificate = namespace, certificate
        self.node = healthy_node("gke-gpu-1")
        self.version: Struct = {"major": "1", "minor": "33", "gitVersion": "v1.33.5-gke.1080000"}
        self.denied: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.images: set[str] = set()
        self.token = ""
        self.stall_seconds = 0.0
        self.methods: list[str] = []
        self.objects: dict[str, Struct] = {
            "": {"metadata": {"name": namespace}, "status": {"phase": "Active"}},
            "serviceaccounts/fashion-tuning-runner": {"metadata": {"name": "fashion-tuning-runner"}},
            "secrets/kaggle": {"metadata": {"name": "kaggle"}, "data": {"kaggle.json": "e30="}},
            "secrets/regcred": {"metadata": {"name": "regcred"}, "data": {".dockerconfigjson": "e30="}},
            "configmaps/kfp-launcher": {
                "metadata": {"name": "kfp-launcher"},
                "data": {"defaultPipelineRoot": "gs://bucket/kfp"},
            },
            f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/team": {
                "metadata": {"name": "team"},
                "status": {"conditions": [{"type": "Active", "status": "True", "message": "Can submit new workloads"}]},
            },
        }
        self.nodes = [self.node, healthy_node("gke-default-1", pool="default", gpus=None)]
        self.quotas = [
            {
                "metadata": {"name": "fashion-tuning-gpus"},
                "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
                "status": {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "2"}},
            }
        ]

    @property
    def host(self) -> str:
        """`127.0.0.1:port`, of the API and of the registry."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://{self.host}"}}],
            "users": [{"name": "me", "user": {"token": "a-token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def answer(self, path: str, headers: Any) -> tuple[int, Struct]:
        """Return the status and the body for a path."""
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return 401, _status(401, "Unauthorized")
        for part, status in self.denied.items():
            if part in path:
                return status, _status(status, f"{path} is refused")
        if image := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            return (200, {}) if f"{image[1]}:{image[2]}" in self.images else (404, {})
        lists = {"resourcequotas": self.quotas}
        below = path.removeprefix(f"/api/v1/namespaces/{self.namespace}").removeprefix("/")
        if path == "/version":
            return 200, {**dict.fromkeys(_VERSION, ""), **self.version}
        if path == "/api/v1/nodes":
            return 200, {"kind": "NodeList", "items": self.nodes}
        if below in lists:
            return 200, {"items": lists[below]}
        found = self.objects.get(path, self.objects.get(below))
        return (200, found) if found is not None else (404, _status(404, f"{path} not found"))

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.methods.append(self.command)
                if fake.stall_seconds:
                    threading.Event().wait(fake.stall_seconds)
                status, body = fake.answer(self.path.partition("?")[0].rstrip("/"), self.headers)
                text = fake.texts.get(self.path.partition("?")[0]) if status != 403 else None
                data = text.encode() if text is not None else json.dumps(body).encode()
                self.send_response(status if text is None else 200)
                self.send_header("Content-Type", "application/json" if text is None else "text/plain")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                # A caller whose time was up hangs up; that is no defect of the server.
                if not isinstance(sys.exc_info()[1], ConnectionError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


_VERSION = (
    "buildDate",
    "compiler",
    "gitCommit",
    "gitTreeState",
    "gitVersion",
    "goVersion",
    "major",
    "minor",
    "platform",
)


def healthy_node(name: str, pool: str = "gpu", gpus: str | None = "1") -> Struct:
    """Return a g2-standard-8 node of Google Kubernetes Engine, as its API shows it."""
    gpu = {"nvidia.com/gpu": gpus} if gpus else {}
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}] if gpus else []
    return {
        "metadata": {"name": name, "labels": {"fashion-tuning/pool": pool, "kubernetes.io/os": "linux"}},
        "spec": {"taints": taints, "unschedulable": None},
        "status": {
            "allocatable": {"cpu": "7910m", "memory": "29205308Ki", "ephemeral-storage": "47093746742", **gpu},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True"},
            ],
            "images": [{"names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 320368}],
        },
    }


def _status(code: int, message: str) -> Struct:
    return {"kind": "Status", "status": "Failure", "message": message, "code": code}
