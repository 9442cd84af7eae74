"""Kubernetes has the Argo workflow behind a run, with what the pipelines API does not contain.

The API's tasks have no messages, drivers are not among the steps, and from 1 MB of states on the API shows the last ones
that it could read: Argo packs them from there on, which Kubeflow Pipelines 2.17 cannot read.
"""

from functools import cached_property
from typing import Any

import urllib3
from kubernetes import client

from components.errors import ConfigurationError
from components.notification.workflow import FailedNode, Workflow, last_words
from pipelines.kubeflow.kubernetes import kubernetes_client

TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and to wait for an answer."""
_LOG_LINES = 200


class UnreadableError(Exception):
    """Kubernetes cannot be asked from here, or does not have the workflow any more."""


class WorkflowReader:
    """Reads workflows and the logs of their pods.

    Args:
        namespace: Namespace of the runs' pods.
        context: Context of the kubeconfig; "" for the current one.
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
        """Return what made a run fail, at most three pods, each with what it said last."""
        return workflow.failed_nodes(lambda node: self._last_words(workflow, node))

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
