"""The compiled pipeline as Kubernetes resources, for clusters that take pipelines from git (Argo CD, Flux) and not by upload.

Needs an API server with `--pipelinesStoreKubernetes`. What the API shows of the resources has the names and the description
that `submit` gives and looks for: either way finds what the other one brought. Source:
https://www.kubeflow.org/docs/components/pipelines/operator-guides/deployment/kubernetes-native-mode/
"""

import re
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigurationError, using
from pipelines.kubeflow.package import Package, read_package

API_VERSION = "pipelines.kubeflow.org/v2beta1"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_MAX_NAME = 253


def write_manifest(pipeline: Path, output: Path, namespace: str) -> Path:
    """Write the Pipeline and PipelineVersion resources of a compiled pipeline.

    A version cannot be changed once it is applied, so each commit makes one of its own.

    Args:
        pipeline: What `compile_pipeline` wrote.
        output: File to write; its folder is made.
        namespace: Namespace of Kubeflow Pipelines, or of the team in multi-user mode.

    Returns:
        `output`.

    Raises:
        ConfigurationError: The commit does not name a version.
    """
    text = yaml.safe_dump_all(
        manifest(read_package(pipeline), namespace), sort_keys=False, allow_unicode=True, width=120
    )
    with using(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return output


def manifest(package: Package, namespace: str) -> list[dict[str, Any]]:
    """Return the two resources.

    Args:
        package: The compiled pipeline.
        namespace: Namespace of the resources.

    Raises:
        ConfigurationError: The version cannot be part of a resource's name.
    """
    information = package.documents[0]["pipelineInfo"]
    name = information["name"]
    version = f"{name}-{package.version}"
    if len(version) > _MAX_NAME or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", version):
        raise ConfigurationError(f"a version's name must be a DNS name; got {version!r}. Set IMAGE_TAG to a commit")
    about = {"description": information["description"]} if information.get("description") else {}
    specification = {
        "displayName": package.version,
        "description": package.description,
        "pipelineName": name,
        "pipelineSpec": package.documents[0],
    }
    if len(package.documents) > 1:
        specification["platformSpec"] = package.documents[1]
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "Pipeline",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"displayName": name, **about},
        },
        {
            "apiVersion": API_VERSION,
            "kind": "PipelineVersion",
            "metadata": {"name": version, "namespace": namespace},
            "spec": specification,
        },
    ]
