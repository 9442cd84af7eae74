"""What is checked on every compiled pipeline: references that nothing gives, and pods a careful cluster refuses.

kfp, its loader and the protobuf parser all accept a graph whose task reads an input that its parent never declares; the
driver then fails in the middle of a run.
"""

import re
from collections.abc import Iterator
from typing import Any

from pipelines.images import PINNED
from pipelines.profile import ClusterProfile
from pipelines.targets import GPU_STEPS

Struct = dict[str, Any]
_PLACEHOLDER = re.compile(r"\$\.inputs\.(parameters|artifacts)\[['\"]([^'\"]+)['\"]\]")
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|credential|api_?key|access_?key)")


def dangling_inputs(pipeline_spec: Struct) -> list[str]:
    """Return every reference in a compiled pipeline that points at nothing.

    Args:
        pipeline_spec: First document of the compiled YAML.

    Returns:
        One sentence per problem; empty where the graph is sound.
    """
    components = pipeline_spec.get("components", {})
    executors = pipeline_spec.get("deploymentSpec", {}).get("executors", {})
    problems: list[str] = []
    for name, component in {"root": pipeline_spec["root"], **components}.items():
        if "dag" in component:
            problems += _dag_problems(name, component, components)
        elif component.get("executorLabel") not in executors:
            problems.append(f"{name} runs {component.get('executorLabel')!r}, which is no executor")
        else:
            declared = _declared(component)
            text = str(executors[component["executorLabel"]])
            problems += [
                f"{name} reads {kind[:-1]} {key!r}, which it does not declare"
                for kind, key in sorted(set(_PLACEHOLDER.findall(text)))
                if key not in declared[kind]
            ]
    return problems


def _declared(component: Struct, side: str = "inputDefinitions") -> dict[str, Struct]:
    """Return the parameters and artifacts that a component declares, by name."""
    definitions = component.get(side, {})
    return {kind: definitions.get(kind, {}) for kind in ("parameters", "artifacts")}


def _dag_problems(name: str, component: Struct, components: dict[str, Struct]) -> Iterator[str]:
    """Yield the dangling references of one graph: its tasks' inputs and its own outputs."""
    declared, tasks = _declared(component), component["dag"].get("tasks", {})
    for task_name, task in tasks.items():
        where = f"{name}/{task_name}"
        called = components.get(task["componentRef"]["name"])
        if called is None:
            yield f"{where} calls {task['componentRef']['name']!r}, which is no component"
            continue
        yield from _task_problems(where, task, _declared(called), declared, tasks, components)
    for kind, definitions in component["dag"].get("outputs", {}).items():
        for output, definition in definitions.items():
            for selector in _selectors(definition):
                key = selector.get("outputParameterKey") or selector.get("outputArtifactKey")
                yield from _producer_problems(
                    f"{name} gives {output!r}", selector.get("producerSubtask"), kind, key, tasks, components
                )


def _task_problems(
    where: str, task: Struct, wanted: dict[str, Struct], declared: dict[str, Struct], tasks: Struct, components: Struct
) -> Iterator[str]:
    """Yield what one task reads, loops over or waits for and nothing gives."""
    given = {"parameters": set(), "artifacts": set()}
    for kind, word in (("parameters", "Parameter"), ("artifacts", "Artifact")):
        for key, source in task.get("inputs", {}).get(kind, {}).items():
            given[kind].add(key)
            parent = source.get(f"componentInput{word}")
            if parent is not None and parent not in declared[kind]:
                yield f"{where} reads {word.lower()} {parent!r}, which its parent does not declare"
            if produced := source.get(f"taskOutput{word}"):
                producer, output = produced.get("producerTask"), produced.get(f"output{word}Key")
                yield from _producer_problems(f"{where} reads {key!r}", producer, kind, output, tasks, components)
    for kind, iterator in (("parameters", "parameterIterator"), ("artifacts", "artifactIterator")):
        loop = task.get(iterator, {})
        items = loop.get("items", {})
        source = items.get("inputParameter") or items.get("inputArtifact")
        if source is not None and source not in given[kind]:
            yield f"{where} loops over {source!r}, which it does not receive"
        given[kind].add(loop.get("itemInput"))
    for kind, definitions in wanted.items():
        for key, definition in definitions.items():
            if key not in given[kind] and not definition.get("isOptional") and "defaultValue" not in definition:
                yield f"{where} needs {kind[:-1]} {key!r}, which nothing gives"
    condition = task.get("triggerPolicy", {}).get("condition", "")
    for key in re.findall(r"inputs\.parameter_values\['([^']+)'\]", condition):
        if key not in given["parameters"]:
            yield f"{where} decides by {key!r}, which it does not receive"
    for other in task.get("dependentTasks", ()):
        if other not in tasks:
            yield f"{where} waits for {other!r}, which is no task beside it"


def _producer_problems(
    what: str, producer: str | None, kind: str, key: str | None, tasks: Struct, components: Struct
) -> Iterator[str]:
    """Yield a problem where no task `producer` with an output `key` stands in the same graph."""
    if producer not in tasks:
        yield f"{what} from {producer!r}, which is no task beside it"
        return
    called = components.get(tasks[producer]["componentRef"]["name"], {})
    if key not in _declared(called, "outputDefinitions")[kind]:
        yield f"{what} from {producer!r}, which has no output {key!r}"


def _selectors(definition: Struct) -> list[Struct]:
    """Return every place a graph's output may come from."""
    if "valueFromOneof" in definition:
        return definition["valueFromOneof"].get("parameterSelectors", [])
    if "valueFromParameter" in definition:
        return [definition["valueFromParameter"]]
    return definition.get("artifactSelectors", [])


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
        found = [*_container_problems(step, container, profile), *_pod_problems(step, pod, profile)]
        problems += [f"{label} {problem}" for problem in found]
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
