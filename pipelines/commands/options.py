"""What `submit` and `schedule` have in common on the command line."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import click

from components.dataset_name import local_path, parse_dataset
from components.errors import ParameterError
from components.parameters import RunParameters
from pipelines.interruption import StoppedError, interrupted_once
from pipelines.presets import PRESETS, default_parameters, run_parameters

F = TypeVar("F", bound=Callable[..., Any] | click.Command)


def connection_options(command: F) -> F:
    """Add the options that say how to reach the API."""
    options = (
        click.option("--cluster", default="gke", show_default=True, help="Cluster profile: a name or a YAML file."),
        click.option(
            "--connect",
            "way",
            type=click.Choice(["auto", "url", "in-cluster", "port-forward"]),
            default="auto",
            show_default=True,
            help="How to reach the API: the profile's URL, the cluster's own name inside a pod, or kubectl.",
        ),
        click.option(
            "--context", default="", help="Context of the kubeconfig for a port-forward; default: the current one."
        ),
        click.option(
            "--installation",
            default="kubeflow",
            show_default=True,
            help="Namespace that Kubeflow Pipelines itself runs in.",
        ),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parameter_options(command: F) -> F:
    """Add the options that set run parameters."""
    options = (
        click.option(
            "--preset", type=click.Choice(list(PRESETS)), default="full", show_default=True, help="Set of parameters."
        ),
        click.option(
            "--dataset", "datasets", multiple=True, metavar="NAME=SOURCE", help="Replaces data_datasets; repeatable."
        ),
        click.option("--set", "settings", multiple=True, metavar="PARAM=VALUE", help="One run parameter; repeatable."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def checked_parameters(
    profile: Any, preset: str, settings: tuple[str, ...], datasets: tuple[str, ...]
) -> dict[str, Any]:
    """Return all parameters of a run on a cluster.

    Raises:
        ParameterError: Lists every problem, also what only works without a cluster.
    """
    checked = RunParameters.from_dict(
        run_parameters(default_parameters(profile.study_root), preset, settings, datasets)
    ).to_dict()
    problems = []
    if "://" not in checked["study_root"]:
        problems.append(
            f"study_root must be gs://bucket/prefix or s3://bucket/prefix on a cluster; got {checked['study_root']!r}"
        )
    for entry in checked["data_datasets"]:
        name, source = parse_dataset(entry)
        if source and local_path(source) is not None:
            problems.append(
                f"the source of {name} must be reachable from the cluster; got {source!r}, a path on this machine"
            )
    if problems:
        raise ParameterError(problems)
    return checked


def terminable() -> AbstractContextManager[None]:
    """Let Ctrl-C and SIGTERM end the block as an error does, so that a port-forward ends with it."""

    def stopped(number: int) -> StoppedError:
        text = "the command was asked to stop; a run that it started goes on. The same command finds it again"
        return StoppedError(number, text)

    return interrupted_once(stopped)
