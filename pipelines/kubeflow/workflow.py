"""The Argo workflow behind a run, as Kubernetes has it: what the pipelines API does not tell of a run.

The API's tasks have no messages, drivers are not among the steps, and from 1 MB of states on the API shows the last ones
that it could read: Argo packs them from there on, which Kubeflow Pipelines 2.17 cannot read.

Source: https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus
"""

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import urllib3
from kubernetes import client

from components.errors import ConfigurationError
from pipelines.kubeflow.kubernetes import kubernetes_client

TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and to wait for an answer."""
MOST = 3
"""Failed nodes that are named."""
_LOG_LINES, _MOST_TEXT = 200, 300
_BAD = ("Failed", "Error")
_STATES = {"Omitted": "not run", "Error": "failed", "": "pending"}


class UnreadableError(Exception):
    """Kubernetes cannot be asked from here, or does not have the workflow any more."""


@dataclass(frozen=True)
class FailedNode:
    """A pod that made the run fail.

    Attributes:
        name: The step, or for a driver its own name.
        message: What its log or Argo says; "" for nothing.
    """

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name} ({self.message})" if self.message else self.name


class Workflow:
    """One workflow's nodes.

    Args:
        resource: As Kubernetes shows it.

    Attributes:
        name: Of the resource.
        is_packed: Whether its states are more than the pipelines API can read.
    """

    def __init__(self, resource: dict[str, Any]) -> None:
        status = resource.get("status") or {}
        packed = status.get("compressedNodes", "")
        self.name: str = resource["metadata"]["name"]
        self.is_packed = bool(packed)
        nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes")
        self._nodes: dict[str, dict[str, Any]] = nodes or {}

    def step_states(self, steps: Sequence[str]) -> dict[str, Counter[str]]:
        """Return how many tasks of each step are in which state; those that have not begun are not there."""
        states: dict[str, Counter[str]] = {}
        for node in self._nodes.values():
            if node.get("displayName") in steps:  # an attempt of it has its number behind the name
                phase = node.get("phase") or ""
                states.setdefault(node["displayName"], Counter())[_STATES.get(phase, phase.lower())] += 1
        return states

    def failed_pods(self) -> list[dict[str, Any]]:
        """Return the pods that made the run fail, oldest first: not those whose step a later attempt saved."""
        attempts = {
            child: node for node in self._nodes.values() if node.get("type") == "Retry" for child in _children(node)
        }
        pods = []
        for key, node in self._nodes.items():
            retry = attempts.get(key)
            saved = retry is not None and (retry.get("phase") not in _BAD or _children(retry)[-1] != key)
            if node.get("type") == "Pod" and node.get("phase") in _BAD and not saved:
                pods.append(node)
        return sorted(pods, key=lambda node: node.get("finishedAt") or "")

    def step_of(self, node: dict[str, Any]) -> str:
        """Return the step that a pod works for, or a driver's own name."""
        if "impl" in node.get("templateName", ""):
            node = self._nodes.get(node.get("boundaryID", ""), node)
        return re.sub(r"\(\d+\)$", "", node.get("displayName", ""))


class WorkflowReader:
    """Reads workflows and the logs of their pods.

    Args:
        namespace: Of the runs' pods.
        context: Of the kubeconfig; "" for the current one.
    """

    def __init__(self, namespace: str, context: str) -> None:
        self._namespace, self._context = namespace, context

    @cached_property
    def _api(self) -> client.ApiClient:
        return kubernetes_client(self._context)

    def read(self, run_id: str) -> Workflow:
        """Return the workflow of a run.

        Raises:
            UnreadableError: It cannot be read from here.
        """
        arguments = ("argoproj.io", "v1alpha1", self._namespace, "workflows")
        try:
            listing = client.CustomObjectsApi(self._api).list_namespaced_custom_object
            workflows = listing(*arguments, label_selector=f"pipeline/runid={run_id}", _request_timeout=TIMEOUT)[
                "items"
            ]
            if not workflows:
                raise UnreadableError(f"there is no workflow of the run in namespace {self._namespace}")
            return Workflow(workflows[0])
        except ConfigurationError as error:
            raise UnreadableError("no kubeconfig names the cluster") from error
        except client.ApiException as error:
            raise UnreadableError(f"workflows in namespace {self._namespace}: {error.status} {error.reason}") from error
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, OSError) as error:
            raise UnreadableError(f"{type(error).__name__}") from error

    def failed_nodes(self, workflow: Workflow) -> list[FailedNode]:
        """Return what made a run fail, at most `MOST` pods, each with what it said last."""
        named: dict[str, FailedNode] = {}
        for node in workflow.failed_pods():
            name = workflow.step_of(node)
            if len(named) < MOST and name not in named:
                message = node.get("message", "")
                said = last_words(message) or self._last_words(workflow, node) or message
                named[name] = FailedNode(name, shortened(said))
        return list(named.values())

    def _last_words(self, workflow: Workflow, node: dict[str, Any]) -> str:
        core = client.CoreV1Api(self._api)
        try:
            pods = core.list_namespaced_pod(
                self._namespace,
                label_selector=f"workflows.argoproj.io/workflow={workflow.name}",
                _request_timeout=TIMEOUT,
            ).items
            pod = next(
                (p for p in pods if (p.metadata.annotations or {}).get("workflows.argoproj.io/node-id") == node["id"]),
                None,
            )
            if pod is None:
                return ""
            log = core.read_namespaced_pod_log(
                pod.metadata.name, self._namespace, container="main", tail_lines=_LOG_LINES, _request_timeout=TIMEOUT
            )
        except (client.ApiException, urllib3.exceptions.HTTPError):
            return ""
        return last_words(log)


def last_words(log: str) -> str:
    """Return the line of a log that says why it ended: our own error line, else a driver's panic or error, else nothing."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ours = [line[line.index("ERROR ") :] for line in lines if re.search(r"\bERROR \d+ ", line)]
    drivers = [line.partition("] ")[2] for line in lines if re.match(r"[FE]\d{4} ", line)]
    panics = [line for line in lines if line.startswith("panic: ")]
    return (ours or panics[:1] or drivers or [""])[-1]


def shortened(text: str) -> str:
    """Return a text in one line, its beginning and its end where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT // 3]} ... {text[-_MOST_TEXT * 2 // 3 :]}"


def _children(node: dict[str, Any]) -> list[str]:
    return node.get("children") or [""]
