"""A port-forward to the Kubeflow UI and API, started and ended by the command that needs it."""

import logging
import re
import shutil
import socket
import subprocess
import threading
import time
from queue import Empty, Queue
from typing import Self

from components.errors import ConfigurationError, FashionTuningError, PermissionDeniedError, UnavailableError

log = logging.getLogger(__name__)

SERVICE = "svc/ml-pipeline-ui"
"""Serves the UI, and the API below /apis."""
START_SECONDS = 30.0


class PortForward:
    """`kubectl port-forward` through the kubeconfig.

    Attributes:
        url: Where the service is reached on this machine; stays the same over restarts.
    """

    def __init__(self, namespace: str, context: str = "") -> None:
        self._namespace, self._context = namespace, context
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str] = Queue()
        self._port = _free_port()

    @property
    def url(self) -> str:
        """Where the service is reached on this machine; stays the same over restarts."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.ensure()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ensure(self) -> None:
        """Start it, or start it again where it has ended: it does when the pod behind it is replaced.

        Raises:
            ConfigurationError: There is no kubectl, or nothing of that name.
            PermissionDeniedError: The caller may not.
            UnavailableError: It does not come up.
        """
        if self._process and self._process.poll() is None:
            return
        self._stop()
        kubectl = shutil.which("kubectl")
        if not kubectl:
            raise ConfigurationError(
                "kubectl must be on the PATH for a port-forward; got none. Install it or give the API's URL"
            )
        command = [kubectl, *(["--context", self._context] if self._context else []), "--namespace", self._namespace]
        command += ["port-forward", "--address", "127.0.0.1", SERVICE, f"{self._port}:80"]
        self._process = subprocess.Popen(  # noqa: S603 - fixed command, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines = Queue()
        threading.Thread(target=_collect, args=(self._process, self._lines), daemon=True).start()
        said = self._wait()
        log.info("port-forward to %s in %s: %s", SERVICE, self._namespace, said)

    def _wait(self) -> str:
        heard: list[str] = []
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.1)
            except Empty:
                if self._process and self._process.poll() is not None and self._lines.empty():
                    break
                continue
            heard.append(line)
            if re.match(r"Forwarding from", line):
                return line
        self._stop()
        # Its last line says why; before it come its library's complaints, the same one many times.
        said = heard[-1] if heard else f"nothing in {START_SECONDS:g} s"
        raise _refusal(self._namespace, said.rstrip("."))

    def _stop(self) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _refusal(namespace: str, said: str) -> FashionTuningError:
    """Return the error that kubectl's last words mean."""
    text = f"the port-forward to {SERVICE} in {namespace} must come up; got: {said}"
    if re.search(r"forbidden", said, re.IGNORECASE):
        return PermissionDeniedError(f"{text}. Ask for the role fashion-tuning-submitter, or give the API's URL")
    if re.search(r"NotFound|not found|does not exist", said):
        return ConfigurationError(f"{text}. Check --installation and --context, or install Kubeflow Pipelines there")
    if re.search(r"Unauthorized|logged in|credentials", said, re.IGNORECASE):
        return ConfigurationError(f"{text}. Log in to the cluster again")
    return UnavailableError(f"{text}. Check the cluster, the network and the kubeconfig's current context")


def _collect(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    if process.stdout:
        with process.stdout:
            for line in process.stdout:
                lines.put(line.strip())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
