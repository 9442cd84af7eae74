"""What a run needs on the server: the pipeline, this commit's version of it and an experiment, each exactly once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.errors import ConfigurationError, ParameterError
from pipelines.fashion_tuning import PIPELINE_NAME
from pipelines.kubeflow.connection import Connection, equals
from pipelines.kubeflow.package import Package
from pipelines.kubeflow.states import is_archived
from pipelines.profile import ClusterProfile

MAX_PARAMETER_BYTES = 10_000
"""Kubeflow's limit for all parameters of a run together, as JSON; MAX_PARAMETER_BYTES of the API server changes it."""
WOULD = "would be created"


@dataclass(frozen=True)
class Published:
    """Ids on the server; empty where a dry run found nothing."""

    pipeline_id: str
    version_id: str
    version: str
    experiment_id: str


def require_cluster(profile: ClusterProfile) -> None:
    """Raise `ConfigurationError` where a profile is of no cluster or still has its example values."""
    if profile.is_local:
        raise ConfigurationError("--cluster must name a cluster; got local. Use `run` to run without one")
    if examples := profile.examples():
        raise ConfigurationError(
            f"cluster profile {profile.name} must have no example values; got {', '.join(examples)}. Replace them"
        )


def check_size(parameters: dict[str, Any]) -> None:
    """Raise `ParameterError` where the parameters are more than Kubeflow takes."""
    size = len(json.dumps(parameters).encode())
    if size > MAX_PARAMETER_BYTES:
        raise ParameterError(
            f"all parameters together must be at most {MAX_PARAMETER_BYTES} bytes of JSON; got {size}. Shorten data_datasets"
        )


def publish(
    connection: Connection, package: Package, experiment: str, say: Callable[[str], None], *, dry_run: bool
) -> Published:
    """Make sure that pipeline, version and experiment are there; what is there already is used.

    Args:
        connection: To the server.
        package: What to upload.
        experiment: Name of the experiment.
        say: Gets one line for each of the three.
        dry_run: Change nothing.
    """
    pipeline_id = _ensure_pipeline(connection, say, dry_run=dry_run)
    version_id, version = _ensure_version(connection, pipeline_id, package, say, dry_run=dry_run)
    experiment_id = _ensure_experiment(connection, experiment, say, dry_run=dry_run)
    return Published(pipeline_id, version_id, version, experiment_id)


def find_pipeline(connection: Connection) -> Any | None:
    """Return the pipeline on the server, or None.

    Where pipelines are Kubernetes resources, a resource's name is taken whatever is displayed for it.
    """
    for key in ("display_name", "name"):
        rows = connection.pages(
            "look for the pipeline",
            connection.client.pipelines.pipeline_service_list_pipelines,
            "pipelines",
            filter=equals(key, PIPELINE_NAME),
            namespace=connection.namespace,
        )
        if rows:
            return rows[0]
    return None


def versions(connection: Connection, pipeline_id: str) -> list[Any]:
    """Return the versions of a pipeline, oldest first."""
    rows = connection.pages(
        "list the pipeline's versions",
        connection.client.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
    )
    return sorted(rows, key=lambda version: version.created_at)


def find_experiment(connection: Connection, name: str) -> Any | None:
    """Return an experiment by its name, or None."""
    rows = connection.pages(
        "look for the experiment",
        connection.client.experiments.experiment_service_list_experiments,
        "experiments",
        filter=equals("display_name", name),
        namespace=connection.namespace,
    )
    return rows[0] if rows else None


def _ensure_pipeline(connection: Connection, say: Callable[[str], None], *, dry_run: bool) -> str:
    pipeline = find_pipeline(connection)
    state = "exists" if pipeline else WOULD if dry_run else "created"
    if not pipeline and not dry_run:
        api = connection.client
        # An empty pipeline first: an upload that makes pipeline and version at once names the version after the pipeline.
        body = api.api_models.V2beta1Pipeline(
            display_name=PIPELINE_NAME,
            description="Is a tuned MLP enough, or does a tuned ResNet18 earn its GPU hours?",
            namespace=connection.namespace or None,
        )
        pipeline = connection.create(
            "create the pipeline",
            lambda: connection.call(
                "create the pipeline", api.pipelines.pipeline_service_create_pipeline, pipeline=body
            ),
            lambda: find_pipeline(connection),
        )
    say(f"pipeline {PIPELINE_NAME}: {state}")
    return pipeline.pipeline_id if pipeline else ""


def _find_version(connection: Connection, pipeline_id: str, name: str) -> Any | None:
    rows = connection.pages(
        "look for the pipeline version",
        connection.client.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
        filter=equals("display_name", name),
    )
    return rows[0] if rows else None


def _ensure_version(
    connection: Connection, pipeline_id: str, package: Package, say: Callable[[str], None], *, dry_run: bool
) -> tuple[str, str]:
    # One commit can give several contents, one per cluster profile or uncommitted change: these get the digest as well.
    for name in (package.version, f"{package.version}-{package.digest[:8]}"):
        version = _find_version(connection, pipeline_id, name) if pipeline_id else None
        if version is None or package.digest in (version.description or ""):
            break
    if version is not None:
        say(f"version {name}: exists")
        return version.pipeline_version_id, name
    if dry_run:
        say(f"version {name}: {WOULD}")
        return "", name
    upload = connection.client.pipeline_uploads.upload_pipeline_version
    made = connection.create(
        "upload the pipeline version",
        lambda: connection.call(
            "upload the pipeline version",
            upload,
            uploadfile=str(package.path),
            name=name,
            pipelineid=pipeline_id,
            description=package.description,
        ),
        lambda: _find_version(connection, pipeline_id, name),
    )
    say(f"version {name}: created")
    return made.pipeline_version_id, name


def _ensure_experiment(connection: Connection, name: str, say: Callable[[str], None], *, dry_run: bool) -> str:
    experiment = find_experiment(connection, name)
    if experiment and is_archived(experiment):
        raise ConfigurationError(
            f"experiment {name} must not be archived; got one that is. Restore it in the UI, or name another one in the"
            " cluster profile"
        )
    state = "exists" if experiment else WOULD if dry_run else "created"
    if not experiment and not dry_run:
        api = connection.client
        body = api.api_models.V2beta1Experiment(display_name=name, namespace=connection.namespace or None)
        experiment = connection.create(
            "create the experiment",
            lambda: connection.call(
                "create the experiment", api.experiments.experiment_service_create_experiment, experiment=body
            ),
            lambda: find_experiment(connection, name),
        )
    say(f"experiment {name}: {state}")
    return experiment.experiment_id if experiment else ""


def runtime_config(models: Any, parameters: dict[str, Any], profile: ClusterProfile) -> Any:
    """Return parameters and pipeline root as runs and recurring runs take them."""
    return models.V2beta1RuntimeConfig(parameters=parameters, pipeline_root=profile.pipeline_root or None)
