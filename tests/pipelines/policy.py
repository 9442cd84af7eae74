"""What the tests check on every pipeline compiled for a cluster: no pod that a careful cluster refuses."""

import re
from collections.abc import Iterator
from typing import Any

from pipelines.images import PINNED
from pipelines.profile import ClusterProfile
from pipelines.targets import GPU_STEPS

Struct = dict[str, Any]
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|credential|api_?key|access_?key)")


def policy_problems(documents: list[Struct], profile: ClusterProfile) -> list[str]:
    """Return why the pods of a compiled pipeline would not be admitted, placed, retried or trusted.

    Args:
        documents: The documents of the compiled YAML: the pipeline, then its platform part.
        profile: The cluster that it was compiled for.

    Returns:
        One sentence per problem; empty where all is well, and always for the profile "local".
    """
    if profile.is_local:
        return []
    executors = documents[0].get("deploymentSpec", {}).get("executors", {})
    platform = documents[1] if len(documents) > 1 else {}
    pods = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    problems: list[str] = []
    for label, executor in executors.items():
        step = re.sub(r"-\d+$", "", label.removeprefix("exec-"))
        container, pod = executor.get("container", {}), pods.get(label, {})
        of_step = [*_container_problems(step, container, profile), *_pod_problems(step, pod, profile)]
        problems += [f"{label} {problem}" for problem in of_step]
    problems += [f"{where} {problem}" for where, problem in _retry_problems(documents[0], profile)]
    return problems


def _container_problems(step: str, container: Struct, profile: ClusterProfile) -> Iterator[str]:
    image = container.get("image", "")
    if not PINNED.fullmatch(image):
        yield f"must run an image named by a digest or a commit; got {image!r}"
    if not image.startswith(f"{profile.registry}/"):
        yield f"must run an image of {profile.registry}; got {image!r}"
    resources = container.get("resources", {})
    for name in ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"):
        if not resources.get(name):
            yield f"must have a {name}; got none"
    accelerator = resources.get("accelerator", {})
    wanted = profile.steps[step].gpus if step in profile.steps else 0
    if (step in GPU_STEPS and profile.accelerator) or wanted:
        got = (accelerator.get("resourceType"), accelerator.get("resourceCount"))
        if got != (profile.accelerator, str(wanted)):
            yield f"must request {wanted} x {profile.accelerator}; got {got[1] or 'none'} x {got[0] or 'none'}"
    if any("pip install" in part for part in container.get("command", ())):
        yield "must install nothing when it starts; got a command with pip install"
    for entry in container.get("env", ()):
        if _SECRET_NAME.search(entry["name"]):
            yield f"must take secrets from a secret; got the plain environment variable {entry['name']}"


def _pod_problems(step: str, pod: Struct, profile: ClusterProfile) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or str(security.get("runAsUser", "0")) == "0":
        yield f"must run as a numeric user other than root; got {security or 'no security context'}"
    if pod.get("nodeSelector", {}).get("labels", {}) != profile.node_selector:
        yield f"must select the node pool {profile.node_selector}; got {pod.get('nodeSelector', {})}"
    if len(pod.get("tolerations", ())) != len(profile.tolerations):
        yield f"must tolerate the node pool's {len(profile.tolerations)} taints; got {len(pod.get('tolerations', ()))}"
    if not int(pod.get("activeDeadlineSeconds", 0)):
        yield "must have a deadline; got none"
    if not all(mount.get("sizeLimit") for mount in pod.get("emptyDirMounts", [{}])):
        yield "must have a size limit on every volume; got one without"
    for volume in (*pod.get("secretAsVolume", ()), *pod.get("secretAsEnv", ())):
        allowed = {secret.name for secret in profile.secrets if step in secret.steps}
        if volume.get("secretName") not in allowed:
            yield f"must not read the secret {volume.get('secretName')!r}"


def _retry_problems(pipeline_spec: Struct, profile: ClusterProfile) -> Iterator[tuple[str, str]]:
    """Yield the tasks of steps that lack the profile's retries, or would stop retrying before they time out."""
    components = pipeline_spec.get("components", {})
    for graph in (pipeline_spec["root"], *components.values()):
        for name, task in graph.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" not in components.get(task["componentRef"]["name"], {}):
                continue
            policy = task.get("retryPolicy", {})
            if int(policy.get("maxRetryCount", 0)) != profile.retries.number:
                yield name, f"must be retried {profile.retries.number} times; got {policy.get('maxRetryCount', 0)}"
            elif policy and policy.get("backoffMaxDuration") != profile.retries.max_duration:
                got = policy.get("backoffMaxDuration", "3600s, the default")
                yield name, f"must be retried for {profile.retries.max_duration}; got {got}"
            if name.startswith("search") and task.get("cachingOptions", {}).get("enableCache"):
                yield name, "must not be cached, because its result is in the study; got caching on"
