"""Preflight compares what the Kubernetes API says with the cluster profile; it only reads."""

import os
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cached_property, partial
from typing import Any, TypeVar

import urllib3
from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

from components.errors import ConfigurationError, FashionTuningError, PermissionDeniedError, UnavailableError
from pipelines.images import ROOT, image_name
from pipelines.kubeflow.kubernetes import kubernetes_client
from pipelines.preflight.findings import Check, Finding
from pipelines.profile import ClusterProfile, StepSettings, Toleration
from pipelines.targets import TARGETS

TIMEOUT = (5.0, 8.0)
"""Seconds to connect, and to wait for an answer."""
SCALES_FROM_ZERO = "Nothing to do where the pool scales from zero; a node then comes with the first pod"
ROLE = "Ask for the role fashion-tuning-preflight"
OUTSIDE = "Nothing to do where the cluster's owner says that it is right; no role of a namespace gives that"
"""What to do about something that is in no namespace."""
T = TypeVar("T")


class MissingError(ConfigurationError):
    """The object that was asked for does not exist."""


def kubernetes_checks(profile: ClusterProfile, parameters: dict[str, Any], context: str) -> dict[str, Check]:
    """Return the checks of the cluster itself by name."""
    cluster = _Cluster(profile, parameters, context)
    checks: dict[str, tuple[Check, object]] = {
        "Kubernetes API": (cluster.version, True),
        "namespace": (cluster.namespace, True),
        "service account": (cluster.service_account, profile.service_account),
        "secrets": (cluster.secrets, profile.secrets or profile.image_pull_secrets),
        "nodes": (cluster.nodes, True),
        "quota": (cluster.quota, True),
        "queue": (cluster.queue, profile.queue),
        "pipeline root": (cluster.pipeline_root, profile.pipeline_root),
    }
    # What the profile does not ask for is not looked at, and is not called passed.
    return {name: check for name, (check, asked) in checks.items() if asked}


class _Cluster:
    """The checks, and the one connection that they share."""

    def __init__(self, profile: ClusterProfile, parameters: dict[str, Any], context: str) -> None:
        self._profile, self._parameters, self._context = profile, parameters, context

    @cached_property
    def _api(self) -> client.ApiClient:
        return kubernetes_client(self._context)

    @cached_property
    def _core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self._api)

    def _ask(self, what: str, function: Callable[..., T], *arguments: Any, right: str = ROLE) -> T:
        """Call the API; every failure becomes one of our errors, one for a missing right says where to get it."""
        try:
            return function(*arguments, _request_timeout=TIMEOUT)
        except client.ApiException as error:
            if error.status == 404:
                raise MissingError(f"{what} must exist; got nothing of that name. Create it") from error
            if error.status == 401:
                raise ConfigurationError("the kubeconfig's credentials must be valid; got 401. Log in again") from error
            if error.status == 403:
                raise PermissionDeniedError(f"{what} must be readable to you; got 403. {right}") from error
            raise UnavailableError(f"{what} must be answered; got status {error.status}. Try again") from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            kind = ConfigurationError if isinstance(reason, urllib3.exceptions.SSLError) else UnavailableError
            raise kind(
                f"the Kubernetes API at {self._api.configuration.host} must answer; got {type(reason).__name__}. Check the"
                " kubeconfig's current context, VPN and proxy"
            ) from error

    @property
    def _deploy(self) -> str:
        """What brings the manifests to the cluster; a profile of one's own need not be named as an overlay is."""
        if (ROOT / "manifests" / "overlays" / self._profile.name).is_dir():
            return f"make deploy CLUSTER={self._profile.name}"
        return "Apply the overlay of manifests/overlays that this profile belongs to, see docs/cluster.md"

    def version(self) -> Iterator[Finding]:
        """The API answers, and is not older than what the profile asks for."""
        version = self._ask("the version", client.VersionApi(self._api).get_code)
        have = tuple(int(re.sub(r"\D.*", "", part)) for part in (version.major, version.minor))
        if have < tuple(int(part) for part in self._profile.kubernetes_version.split(".")[:2]):
            yield Finding(
                "Kubernetes API",
                f"Kubernetes must be at least {self._profile.kubernetes_version}; got {version.major}.{version.minor}",
                "Upgrade the control plane",
            )

    def namespace(self) -> Iterator[Finding]:
        """The namespace is there and stays."""
        name = self._profile.namespace
        try:
            namespace = self._ask(f"namespace {name}", self._core.read_namespace, name, right=OUTSIDE)
        except MissingError as error:
            yield Finding("namespace", _problem(error), self._deploy)
            return
        except PermissionDeniedError as error:
            # An account that is confined to the namespace may read everything in it but not itself.
            yield Finding.of("namespace", error, warning=True)
            return
        if namespace.status.phase != "Active":
            yield Finding(
                "namespace", f"namespace {name} must be active; got {namespace.status.phase}", "Wait, then deploy again"
            )

    def service_account(self) -> Iterator[Finding]:
        """The account of the run's pods is there."""
        name = self._profile.service_account
        try:
            self._ask(
                f"service account {name}", self._core.read_namespaced_service_account, name, self._profile.namespace
            )
        except MissingError as error:
            yield Finding("service account", _problem(error), self._deploy)

    def secrets(self) -> Iterator[Finding]:
        """Every secret that a step reads has its keys, none of them empty; the registry's has the right type."""
        needed = {name for entry in self._parameters["data_datasets"] if (name := _kaggle_of(entry))}
        for secret in self._profile.secrets:
            wanted = (
                not secret.optional
                or "notify" in secret.steps
                or (bool(needed) and "ingest" in secret.steps and secret.name == "kaggle")
            )
            yield from self._secret(secret.name, secret.keys, wanted)
        for name in self._profile.image_pull_secrets:
            yield from self._secret(name, (".dockerconfigjson",), True)

    def _secret(self, name: str, keys: tuple[str, ...], wanted: bool) -> Iterator[Finding]:
        create = f"kubectl -n {self._profile.namespace} create secret generic {name}"
        remedy = f"{create} {' '.join(f'--from-file={key}' for key in keys)}"
        try:
            data = (
                self._ask(f"secret {name}", self._core.read_namespaced_secret, name, self._profile.namespace).data or {}
            )
        except MissingError as error:
            if wanted:
                yield Finding("secrets", _problem(error), remedy)
            return
        except FashionTuningError as error:
            yield Finding.of("secrets", error)
            return
        for key in keys:
            if not data.get(key):
                got = "an empty one" if key in data else f"only {', '.join(sorted(data)) or 'nothing'}"
                yield Finding("secrets", f"secret {name} must have the key {key}; got {got}", remedy)

    def nodes(self) -> Iterator[Finding]:
        """Some node of the pool is ready, tolerated and large enough for each step."""
        try:
            nodes = self._ask("the list of nodes", self._core.list_node, right=OUTSIDE).items
        except PermissionDeniedError as error:
            yield Finding.of("nodes", error, warning=True)
            if self._profile.image_pull_policy == "Never":
                problem = "the nodes' images must be known, because image_pull_policy is Never; got 403 for the nodes"
                yield Finding("images", problem, "See on a node with: crictl images", 0)
            return
        selector = self._profile.node_selector
        pool = [node for node in nodes if selector.items() <= (node.metadata.labels or {}).items()]
        if self._profile.image_pull_policy == "Never":
            yield from self._not_loaded(pool or nodes)
        if not pool:
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            problem = f"some node must have the labels {labels}; got none of {len(nodes)}"
            autoscaled = self._profile.autoscaled
            remedy = SCALES_FROM_ZERO if autoscaled else "Correct node_selector, or add such a node pool"
            yield Finding("nodes", problem, remedy, 0 if autoscaled else os.EX_CONFIG)
            return
        tolerated = [node for node in pool if not self._refused_by(node)]
        if not tolerated:
            taints = sorted({self._refused_by(node) for node in pool})
            problem = f"the profile must tolerate the pool's taints; got none for {', '.join(taints)}"
            yield Finding("nodes", problem, "Add them to tolerations")
            return
        ready = [node for node in tolerated if _is_ready(node)]
        if not ready:
            names = ", ".join(node.metadata.name for node in tolerated)
            problem = f"some node of the pool must be ready and schedulable; got none of {names}"
            yield Finding("nodes", problem, "See: kubectl describe node", os.EX_UNAVAILABLE)
            return
        yield from self._too_small(ready)

    def _refused_by(self, node: Any) -> str:
        """Return the first taint of a node that no toleration of the profile covers, "" for none."""
        # An unschedulable node carries this taint as well; it is reported as not ready.
        for taint in node.spec.taints or []:
            passing = taint.effect == "PreferNoSchedule" or taint.key.startswith("node.kubernetes.io/")
            if not passing and not any(_tolerates(entry, taint) for entry in self._profile.tolerations):
                return f"{taint.key}={taint.value or ''}:{taint.effect}"
        return ""

    def _too_small(self, nodes: list[Any]) -> Iterator[Finding]:
        """Compare what each kind of step requests with the most that one node gives."""
        for settings, steps in _distinct(self._profile).items():
            wanted = _requests(settings, self._profile.accelerator)
            if any(
                all(parse_quantity(node.status.allocatable.get(name, "0")) >= amount for name, amount in wanted.items())
                for node in nodes
            ):
                continue
            for name, amount in wanted.items():
                most = max((node.status.allocatable.get(name, "0") for node in nodes), key=parse_quantity)
                if parse_quantity(most) < amount:
                    remedy = f"Lower it for {', '.join(steps)} in the profile, or use larger nodes"
                    if name == self._profile.accelerator and parse_quantity(most) == 0:
                        remedy = "Install the GPU's driver and device plugin, or correct accelerator in the profile"
                    got = f"at most {most} in the pool"
                    yield Finding("nodes", f"a node must have {_shown(name, amount)} {name} to give; got {got}", remedy)

    def _not_loaded(self, nodes: list[Any]) -> Iterator[Finding]:
        """Images that are never pulled must be on the nodes."""
        there = {name for node in nodes for image in node.status.images or [] for name in image.names or []}
        for target in TARGETS:
            name = image_name(target, self._profile)
            if not any(loaded.endswith(name) for loaded in there):
                problem = f"image {name} must be on a node, because image_pull_policy is Never; got none"
                yield Finding("images", problem, f"kind load docker-image {name}")

    def quota(self) -> Iterator[Finding]:
        """Quotas leave room for at least one pod of each kind, and limits admit it."""
        namespace = self._profile.namespace
        quotas = self._ask("the list of quotas", self._core.list_namespaced_resource_quota, namespace).items
        largest: dict[str, Decimal] = {}
        for settings in self._profile.steps.values():
            for name, amount in _requests(settings, self._profile.accelerator).items():
                largest[name] = max(amount, largest.get(name, Decimal(0)))
        for quota in quotas:
            hard, used = quota.status.hard or quota.spec.hard or {}, quota.status.used or {}
            for resource, amount in largest.items():
                for name in (f"requests.{resource}", f"limits.{resource}", resource):
                    if name not in hard or not amount:
                        continue
                    left = parse_quantity(hard[name]) - parse_quantity(used.get(name, "0"))
                    if left < amount:
                        total = parse_quantity(hard[name]) < amount
                        problem = (
                            f"quota {quota.metadata.name} must leave {_shown(resource, amount)} of {name}; got"
                            f" {_shown(resource, max(left, Decimal(0)))} of {hard[name]}"
                        )
                        remedy = (
                            "Raise the quota, or lower the profile"
                            if total
                            else "Wait for other runs, or raise the quota"
                        )
                        yield Finding("quota", problem, remedy, os.EX_CONFIG if total else os.EX_UNAVAILABLE)

    def queue(self) -> Iterator[Finding]:
        """Kueue's local queue is there and takes pods."""
        name = self._profile.queue
        ask = partial(client.CustomObjectsApi(self._api).get_namespaced_custom_object, "kueue.x-k8s.io", "v1beta2")
        try:
            queue = self._ask(f"local queue {name}", ask, self._profile.namespace, "localqueues", name)
        except MissingError as error:
            yield Finding("queue", _problem(error), "Install Kueue and make deploy CLUSTER=gke-kueue, or empty queue")
            return
        states = {entry["type"]: entry for entry in queue.get("status", {}).get("conditions", [])}
        active = states.get("Active", {})
        if active.get("status") != "True":
            problem = (
                f"local queue {name} must be active; got {active.get('message') or active.get('status') or 'no status'}"
            )
            yield Finding("queue", problem, "See: kubectl describe clusterqueue")

    def pipeline_root(self) -> Iterator[Finding]:
        """Runs started in the UI keep their artifacts where the profile says."""
        wanted = self._profile.pipeline_root
        try:
            config_map = self._ask(
                "configuration kfp-launcher",
                self._core.read_namespaced_config_map,
                "kfp-launcher",
                self._profile.namespace,
            )
        except FashionTuningError as error:
            yield Finding.of("pipeline root", error, warning=True)
            return
        root = (config_map.data or {}).get("defaultPipelineRoot", "")
        if root != wanted:
            problem = f"kfp-launcher must name {wanted}, the profile's pipeline_root; got {root or 'nothing'}"
            yield Finding("pipeline root", problem, self._deploy, 0)


def _problem(error: FashionTuningError) -> str:
    return str(error).rpartition(". ")[0]


def _kaggle_of(dataset: str) -> str:
    """Return the name of a dataset that comes from Kaggle, "" for others."""
    name, _, source = dataset.partition("=")
    return name if source == "kaggle" or (not source and name == "fashion-products") else ""


def _tolerates(toleration: Toleration, taint: Any) -> bool:
    if toleration.effect not in (None, taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in (None, taint.key)
    return toleration.key == taint.key and (toleration.value or "") == (taint.value or "")


def _is_ready(node: Any) -> bool:
    conditions = {entry.type: entry.status for entry in node.status.conditions or []}
    return conditions.get("Ready") == "True" and not node.spec.unschedulable


def _distinct(profile: ClusterProfile) -> dict[StepSettings, list[str]]:
    """Return the different settings, and which steps have them."""
    steps_of: dict[StepSettings, list[str]] = {}
    for step, settings in profile.steps.items():
        steps_of.setdefault(settings, []).append(step)
    return steps_of


def _requests(settings: StepSettings, accelerator: str) -> dict[str, Decimal]:
    requests = {"cpu": parse_quantity(settings.cpu), "memory": parse_quantity(settings.memory)}
    return requests | ({accelerator: Decimal(settings.gpus)} if settings.gpus else {})


def _shown(resource: str, amount: Decimal) -> str:
    return f"{amount / 1024**3:g}Gi" if resource in ("memory", "ephemeral-storage") else f"{amount:g}"
