"""The compiled pipeline under its names: upload and Kubernetes resources must agree on them, or they exclude each other."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigurationError
from pipelines.compilation import compile_pipeline
from pipelines.images import ROOT, image_tag
from pipelines.profile import ClusterProfile


@dataclass(frozen=True)
class Package:
    """A compiled pipeline, named so that the same content is uploaded once.

    Attributes:
        path: The YAML.
        documents: What it holds: the pipeline, then its platform part where there is one.
        version: Name of the version: the project's version and the commit.
        digest: SHA-256 of the content; the order of keys does not matter.
        steps: Names of the tasks that run a container, in the order of the graph.
    """

    path: Path
    documents: tuple[dict[str, Any], ...]
    version: str
    digest: str
    steps: tuple[str, ...]

    @property
    def description(self) -> str:
        """Text kept with the version; carries the digest."""
        return f"fashion-tuning {self.version}, content sha256:{self.digest}"


def make_package(directory: Path, profile: ClusterProfile) -> Package:
    """Compile the pipeline for a cluster and name the result.

    Args:
        directory: Folder to write the YAML to.
        profile: The cluster.

    Raises:
        ConfigurationError: The files differ from the commit, so that no registry has their images; no commit is known.
        FashionTuningError: It does not compile.
    """
    if image_tag().endswith("-dirty") and profile.image_pull_policy != "Never":
        raise ConfigurationError(f"the images must be of a commit; got {image_tag()}. Commit, then `make images push`")
    return read_package(compile_pipeline(directory / "fashion-tuning.yaml", profile))


def read_package(path: Path) -> Package:
    """Return a compiled pipeline under the names that every way of bringing it to a cluster gives it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same documents, ten times as fast
    documents = tuple(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
    digest = hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Package(path, documents, f"{project['version']}-{image_tag()}", digest, _steps(documents[0]))


def _steps(spec: dict[str, Any]) -> tuple[str, ...]:
    steps: list[str] = []

    def visit(component: dict[str, Any]) -> None:
        tasks = component["dag"]["tasks"]
        order = TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()})
        for name in order.static_order():
            inner = spec["components"][tasks[name]["componentRef"]["name"]]
            if "dag" in inner:
                visit(inner)
            elif name not in steps:
                steps.append(name)

    visit(spec["root"])
    return tuple(steps)
