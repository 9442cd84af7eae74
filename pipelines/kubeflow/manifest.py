"""The compiled pipeline as Kubernetes resources, for clusters that take pipelines from git (Argo CD, Flux) and not by upload.

Needs an API server with `--pipelinesStoreKubernetes`. Source:
https://www.kubeflow.org/docs/components/pipelines/operator-guides/deployment/kubernetes-native-mode/
"""

import re
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigurationError
from pipelines.images import image_tag

API_VERSION = "pipelines.kubeflow.org/v2beta1"


def write_manifest(pipeline: Path, output: Path, namespace: str) -> Path:
    """Write the Pipeline and PipelineVersion resources of a compiled pipeline.

    A version cannot be changed once it is applied, so each commit makes one of its own.

    Args:
        pipeline: What `compile_pipeline` wrote.
        output: File to write; its folder is made.
        namespace: Of Kubeflow Pipelines, or of the team in multi-user mode.

    Returns:
        `output`.

    Raises:
        ConfigurationError: The commit does not name a version.
    """
    documents = list(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))
    output.parent.mkdir(parents=True, exist_ok=True)
    resources = manifest(documents, namespace, image_tag())
    output.write_text(yaml.safe_dump_all(resources, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    return output


def manifest(documents: list[dict[str, Any]], namespace: str, tag: str) -> list[dict[str, Any]]:
    """Return the two resources.

    Args:
        documents: Of the compiled YAML: the pipeline, then its platform part where there is one.
        namespace: Of the resources.
        tag: The commit.

    Raises:
        ConfigurationError: The tag cannot be part of a resource's name.
    """
    information = documents[0]["pipelineInfo"]
    name = information["name"]
    version = f"{name}-{tag}"
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", version):
        raise ConfigurationError(f"a version's name must be a DNS label; got {version!r}. Set IMAGE_TAG to a commit")
    description = {"description": information["description"]} if information.get("description") else {}
    display_name = information.get("displayName", name)
    specification = {"displayName": version, **description, "pipelineName": name, "pipelineSpec": documents[0]}
    if len(documents) > 1:
        specification["platformSpec"] = documents[1]
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "Pipeline",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"displayName": display_name, **description},
        },
        {
            "apiVersion": API_VERSION,
            "kind": "PipelineVersion",
            "metadata": {"name": version, "namespace": namespace},
            "spec": specification,
        },
    ]
