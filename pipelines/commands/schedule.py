"""`schedule` sets up regular retraining and shows when it happens next."""

import json
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console

from components.errors import ParameterError
from pipelines.commands.options import Reach, checked_parameters, connection_options, parameter_options, terminable
from pipelines.kubeflow.cron import Cron
from pipelines.presets import Asked

if TYPE_CHECKING:
    from pipelines.kubeflow.connection import Connection
    from pipelines.kubeflow.recurring import Wanted
    from pipelines.profile import ClusterProfile

DEFAULT_NAME = "fashion-tuning"
OFTEN = timedelta(hours=1)
"""Schedules that fire more often than this get a warning: a run takes longer."""


@click.group("schedule", invoke_without_command=True)
@connection_options
@parameter_options
@click.option("--cron", "cron_text", default=None, help='Six fields, seconds first, or a descriptor: "0 0 3 * * 1".')
@click.option(
    "--timezone", default="UTC", show_default=True, help="The cluster's CRON_SCHEDULE_TIMEZONE, for the times shown."
)
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Name of the recurring run.")
@click.option("--force", is_flag=True, help="Replace or remove it even while one of its runs works.")
@click.option("--remove", is_flag=True, help="Remove it.")
@click.option("--dry-run", is_flag=True, help="Show the difference; change nothing.")
@click.pass_context
def schedule_command(
    click_context: click.Context,
    reach: Reach,
    asked: Asked,
    cron_text: str | None,
    timezone: str,
    name: str,
    force: bool,
    remove: bool,
    dry_run: bool,
) -> None:
    """Make sure that exactly one recurring run exists, on the newest version of the pipeline.

    Kubeflow cannot change a recurring run: where anything differs it is replaced.
    """
    if click_context.invoked_subcommand:
        click_context.default_map = {"show": {**asdict(reach), "timezone": timezone, "name": name}}
        return
    from pipelines.kubeflow.publish import check_size, require_cluster
    from pipelines.kubeflow.recurring import reconcile, remove_all
    from pipelines.profile import load_profile

    if remove == (cron_text is not None):
        raise ParameterError("schedule must get either --cron or --remove. See --help")
    zone = _zone(timezone)
    cron = Cron.parse(cron_text) if cron_text is not None else None
    profile = load_profile(reach.cluster)
    require_cluster(profile)
    parameters = {} if remove else checked_parameters(profile, asked)
    check_size(parameters)
    with (
        terminable(),
        reach.connect(profile) as api,
    ):
        if cron is None:
            remove_all(api, name, _say, force=force, dry_run=dry_run)
            return
        with tempfile.TemporaryDirectory(prefix="fashion-tuning-") as scratch:
            wanted = _wanted(api, Path(scratch), profile, name, cron, parameters, dry_run=dry_run)
        reconcile(api, wanted, _say, force=force, dry_run=dry_run)
    _announce(cron, zone)


@schedule_command.command("show")
@connection_options
@click.option(
    "--timezone", default="UTC", show_default=True, help="The cluster's CRON_SCHEDULE_TIMEZONE, for the times shown."
)
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Name of the recurring run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(
    reach: Reach,
    timezone: str,
    name: str,
    as_json: bool,
) -> None:
    """Show the recurring run of that name: when it fires, what it runs and how its last runs ended."""
    from pipelines.kubeflow.recurring import describe, find_schedules
    from pipelines.profile import load_profile

    zone = _zone(timezone)
    profile = load_profile(reach.cluster)
    with (
        terminable(),
        reach.connect(profile) as api,
    ):
        schedules = [describe(api, recurring, zone) for recurring in find_schedules(api, name)]
    if as_json:
        click.echo(json.dumps(schedules, indent=1))
        return
    if not schedules:
        click.echo(f"there is no recurring run {name}")
    for entry in schedules:
        for key, value in entry.items():
            if key == "reach" and not value:
                continue
            click.echo(f"{key:<12} {value if not isinstance(value, list) else ', '.join(value) or 'none'}")
    if len(schedules) > 1:
        click.echo(f"{len(schedules)} recurring runs have this name; `schedule --cron` leaves one")


def _wanted(
    api: "Connection",
    scratch: Path,
    profile: "ClusterProfile",
    name: str,
    cron: Cron,
    parameters: dict[str, Any],
    *,
    dry_run: bool,
) -> "Wanted":
    from pipelines.kubeflow.package import make_package
    from pipelines.kubeflow.publish import Published, publish, versions
    from pipelines.kubeflow.recurring import Wanted

    published = publish(api, make_package(scratch, profile), profile.experiment, _say, dry_run=dry_run)
    version = published.version
    newest = versions(api, published.pipeline_id)[-1] if published.version_id else None
    if newest and newest.pipeline_version_id != published.version_id:
        _say(f"version {newest.display_name} is newer than this commit's {version}, and is taken")
        version = newest.display_name
        published = Published(
            published.pipeline_id, newest.pipeline_version_id, newest.display_name, published.experiment_id
        )
    return Wanted(name, cron, published, version, parameters, profile)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ParameterError(
            f"--timezone must be a name such as UTC or Europe/Berlin; got {name!r}. Correct it"
        ) from error


def _announce(cron: Cron, zone: ZoneInfo) -> None:
    from pipelines.kubeflow.recurring import shown_time

    times = cron.next_times(datetime.now(UTC), zone)
    for time in times:
        _say(f"fires {shown_time(time)}")
    _say(
        f"times are in {zone.key}; the cluster's own zone is the schedule controller's CRON_SCHEDULE_TIMEZONE, UTC unless set"
    )
    if len(times) > 1 and times[1] - times[0] < OFTEN:
        _say(f"warning: that is every {(times[1] - times[0]).total_seconds():g} s, more often than a run can end")


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
