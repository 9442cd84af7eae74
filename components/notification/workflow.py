"""This module reads from an Argo workflow the states of a run's steps and what made the run fail.

Source: https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus
"""

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MOST = 3
"""Failed nodes that are named."""
_MOST_TEXT = 300
_BAD = ("Failed", "Error")
_STATES = {"Omitted": "not run", "Error": "failed", "": "pending"}


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
        resource: The workflow as Kubernetes shows it.

    Attributes:
        name: Name of the resource.
        phase: In small letters, as Argo has it: pending, running, succeeded, failed or error.
        started_at: Seconds since 1970; None before it began.
        finished_at: Seconds since 1970; None before it ended.
        is_packed: Whether its states are more than the pipelines API can read.
        is_cancelled: Whether somebody cancelled it: in Kubeflow, which leaves it no time, or in Argo.
    """

    def __init__(self, resource: dict[str, Any]) -> None:
        status, spec = resource.get("status") or {}, resource.get("spec") or {}
        packed = status.get("compressedNodes", "")
        self.name: str = resource["metadata"]["name"]
        self.phase: str = (status.get("phase") or "pending").lower()
        self.started_at, self.finished_at = _seconds(status.get("startedAt")), _seconds(status.get("finishedAt"))
        self.is_packed = bool(packed)
        self.is_cancelled = spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))
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

    def failed_nodes(self, read_log: Callable[[dict[str, Any]], str] = lambda _node: "") -> list[FailedNode]:
        """Return what made the run fail, at most `MOST` pods, each with what it said last.

        Args:
            read_log: Returns the last words in the log of a node's pod, "" for none; asked where Argo has none.
        """
        named: dict[str, FailedNode] = {}
        for node in self.failed_pods():
            name = self.step_of(node)
            if len(named) < MOST and name not in named:
                message = node.get("message", "")
                named[name] = FailedNode(name, shortened(last_words(message) or read_log(node) or message))
        return list(named.values())


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


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time).timestamp() if time else None


def _children(node: dict[str, Any]) -> list[str]:
    return node.get("children") or [""]
