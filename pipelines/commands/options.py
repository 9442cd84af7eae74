"""`submit` and `schedule` share these options and checks."""

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.buckets import example_uris
from components.dataset_name import local_path, parse_dataset
from components.errors import ParameterError
from components.parameters import RunParameters
from pipelines.commands import DEBUG_OPTION
from pipelines.interruption import StoppedError, interrupted_once
from pipelines.paths import UserPath
from pipelines.presets import PRESETS, Asked, default_parameters

if TYPE_CHECKING:
    from pipelines.kubeflow.connection import Connection
    from pipelines.profile import ClusterProfile

Command = Callable[..., Any]


@dataclass(frozen=True)
class Reach:
    """How to reach a cluster's API: what `connection_options` were given.

    Attributes:
        cluster: Profile, by name or path.
        way: `auto`, `url`, `in-cluster` or `port-forward`.
        context: Context of the kubeconfig; "" for the current one.
        installation: Namespace of Kubeflow Pipelines itself.
    """

    cluster: str
    way: str
    context: str
    installation: str

    def connect(self, profile: "ClusterProfile") -> AbstractContextManager["Connection"]:
        """Return a connection to the API, which ends with the block."""
        from pipelines.kubeflow.connection import connect

        return connect(
            api=profile.api,
            namespace=profile.namespace,
            way=self.way,
            context=self.context,
            installation=self.installation,
        )


def connection_options(command: Command) -> Command:
    """Add the options that say how to reach the API; the command takes them as `reach`."""

    @functools.wraps(command)
    def with_reach(*arguments: Any, cluster: str, way: str, context: str, installation: str, **others: Any) -> Any:
        return command(*arguments, reach=Reach(cluster, way, context, installation), **others)

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
        DEBUG_OPTION,
    )
    return _with_options(with_reach, options)


SET_OPTION = click.option(
    "--set", "settings", multiple=True, metavar="PARAM=VALUE", help="Change a run parameter; repeatable."
)
PARAMETERS_OPTION = click.option(
    "--parameters",
    "file",
    type=UserPath(dir_okay=False),
    metavar="FILE",
    help="YAML file with run parameters, such as the parameters.yaml that a run leaves; other flags go before it.",
)


def parameter_options(command: Command) -> Command:
    """Add the options that set run parameters; the command takes them as `asked`."""

    @functools.wraps(command)
    def with_asked(
        *arguments: Any,
        preset: str | None,
        file: Path | None,
        datasets: tuple[str, ...],
        settings: tuple[str, ...],
        **others: Any,
    ) -> Any:
        return command(*arguments, asked=Asked(preset, file, datasets, settings), **others)

    options = (
        click.option("--preset", type=click.Choice(list(PRESETS)), help="Named set of parameters.  [default: full]"),
        PARAMETERS_OPTION,
        click.option(
            "--dataset", "datasets", multiple=True, metavar="NAME=SOURCE", help="Dataset to compare on; repeatable."
        ),
        SET_OPTION,
    )
    return _with_options(with_asked, options)


def _with_options(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def checked_parameters(profile: "ClusterProfile", asked: Asked) -> dict[str, Any]:
    """Return all parameters of a run on a cluster.

    Raises:
        ParameterError: Lists every problem, also what only works without a cluster.
    """
    checked = RunParameters.from_dict(asked.parameters(default_parameters(profile.study_root))).to_dict()
    problems = []
    if "://" not in checked["study_root"]:
        problems.append(
            f"study_root must be {example_uris('bucket/prefix')} on a cluster; got {checked['study_root']!r}"
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
