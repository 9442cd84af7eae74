"""The recurring run on the server: exactly one of its name, replaced where anything differs, never under a working run."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from components.errors import FashionTuningError, ParameterError, TryAgainError
from components.parameters import without_queries
from pipelines.kubeflow.connection import Connection, equals
from pipelines.kubeflow.cron import Cron
from pipelines.kubeflow.failures import MissingError
from pipelines.kubeflow.publish import Published, runtime_config, versions
from pipelines.kubeflow.states import FINISHED, state_of
from pipelines.profile import ClusterProfile


@dataclass(frozen=True)
class Wanted:
    """What the recurring run must be.

    Attributes:
        name: Display name of the recurring run.
        cron: Expression of the times at which it fires.
        published: Pipeline, version and experiment.
        version: Name of the version.
        parameters: Run parameters of each run.
        profile: The cluster.
    """

    name: str
    cron: Cron
    published: Published
    version: str
    parameters: dict[str, Any]
    profile: ClusterProfile

    def differences(self, recurring: Any) -> list[str]:
        """Return `field: is -> wanted` for everything in which a recurring run on the server differs."""
        reference = recurring.pipeline_version_reference
        runtime = recurring.runtime_config
        schedule = recurring.trigger.cron_schedule if recurring.trigger else None
        compared = [
            ("cron", schedule.cron if schedule else "an interval", self.cron.text),
            (
                "version",
                reference.pipeline_version_id if reference else "its own copy",
                self.published.version_id or self.version,
            ),
            ("experiment", recurring.experiment_id, self.published.experiment_id),
            ("concurrency", int(recurring.max_concurrency or 0), 1),
            ("catch-up", "no" if recurring.no_catchup else "yes", "no"),
            ("state", (recurring.status or "").lower(), "enabled"),
            ("pipeline root", (runtime.pipeline_root if runtime else None) or "", self.profile.pipeline_root),
        ]
        if self.profile.service_account:
            compared.append(("service account", recurring.service_account or "", self.profile.service_account))
        parameters = (runtime.parameters if runtime else None) or {}
        for name in sorted({*parameters, *self.parameters}):
            compared.append((name, parameters.get(name), self.parameters.get(name)))  # noqa: PERF401
        return [
            f"{name}: {without_queries(is_value)!r} -> {without_queries(wanted)!r}"
            for name, is_value, wanted in compared
            if is_value != wanted
        ]


def find_schedules(api: Connection, name: str) -> list[Any]:
    """Return the recurring runs of that name, newest first."""
    return api.pages(
        "list the recurring runs",
        api.client.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        namespace=api.namespace,
        filter=equals("display_name", name),
        sort_by="created_at desc",
    )


def reconcile(api: Connection, wanted: Wanted, say: Callable[[str], None], *, force: bool, dry_run: bool) -> None:
    """Leave exactly the recurring run that is wanted.

    The new one is made disabled, the others are deleted, then it is enabled: at no moment two of them can fire, and where
    the command is interrupted the next one finishes the work.

    Args:
        api: To the server.
        wanted: What must be.
        say: Gets one line per change.
        force: Do it even while a run of one that must go works.
        dry_run: Change nothing.

    Raises:
        TryAgainError: A run of one that must go works.
    """
    existing = find_schedules(api, wanted.name)
    kept = next((recurring for recurring in existing if not wanted.differences(recurring)), None)
    others = [recurring for recurring in existing if recurring is not kept]
    for recurring in others:
        for line in wanted.differences(recurring) or ["is a second one of this name"]:
            say(f"recurring run {recurring.recurring_run_id}: {line}")
    if kept and not others:
        say(f"schedule {wanted.name}: as wanted")
        return
    _require_idle(api, others, force=force)
    verb = "created" if not existing else "replaced" if not kept else f"kept, {len(others)} other removed"
    if dry_run:
        say(f"schedule {wanted.name}: would be {verb}")
        return
    made = kept or _create(api, wanted, {recurring.recurring_run_id for recurring in existing})
    try:
        _delete(api, others, force=force)
        if not kept:
            _enable(api, made)
    except FashionTuningError as error:
        raise type(error)(f"{error}. The schedule is half replaced: run the same command again") from error
    say(f"schedule {wanted.name}: {verb}, on version {wanted.version}")


def remove_all(api: Connection, name: str, say: Callable[[str], None], *, force: bool, dry_run: bool) -> None:
    """Delete every recurring run of that name.

    Raises:
        TryAgainError: One of its runs works.
    """
    existing = find_schedules(api, name)
    _require_idle(api, existing, force=force)
    if not dry_run:
        _delete(api, existing, force=force)
    say(f"schedule {name}: {'would be ' if dry_run and existing else ''}{'removed' if existing else 'is not there'}")


def describe(api: Connection, recurring: Any, zone: ZoneInfo) -> dict[str, Any]:
    """Return what `schedule show` shows of one recurring run."""
    reference = recurring.pipeline_version_reference
    all_versions = versions(api, reference.pipeline_id) if reference else []
    names = {version.pipeline_version_id: version.display_name for version in all_versions}
    version = names.get(reference.pipeline_version_id, "deleted") if reference else "its own copy"
    if all_versions and version != all_versions[-1].display_name:
        version += f", not the newest, {all_versions[-1].display_name}"
    schedule = recurring.trigger.cron_schedule if recurring.trigger else None
    times: list[str] = []
    if schedule and recurring.status == "ENABLED":
        try:
            times = [shown_time(time) for time in Cron.parse(schedule.cron).next_times(datetime.now(UTC), zone)]
        except ParameterError as error:
            times = [f"unknown: {error}"]
    return {
        "name": recurring.display_name,
        "id": recurring.recurring_run_id,
        "state": (recurring.status or "").lower(),
        "cron": schedule.cron if schedule else "",
        "next": times,
        "version": version,
        "link": api.link("recurringrun", recurring.recurring_run_id),
        "reach": api.reach,
        "last runs": [f"{run.run_id} {state_of(run)}" for run in _runs_of(api, recurring)[:3]],
    }


def _create(api: Connection, wanted: Wanted, earlier_ids: set[str]) -> Any:
    models = api.client.api_models
    body = models.V2beta1RecurringRun(
        display_name=wanted.name,
        description="Made by `fashion-tuning schedule`; change it there.",
        experiment_id=wanted.published.experiment_id,
        pipeline_version_reference=models.V2beta1PipelineVersionReference(
            pipeline_id=wanted.published.pipeline_id, pipeline_version_id=wanted.published.version_id
        ),
        runtime_config=runtime_config(models, wanted.parameters, wanted.profile),
        trigger=models.V2beta1Trigger(cron_schedule=models.V2beta1CronSchedule(cron=wanted.cron.text)),
        mode=models.RecurringRunMode.DISABLE,
        max_concurrency=1,
        no_catchup=True,
        service_account=wanted.profile.service_account or None,
    )
    create = api.client.recurring_runs.recurring_run_service_create_recurring_run
    return api.create(
        "create the recurring run",
        lambda: api.call("create the recurring run", create, recurring_run=body),
        lambda: next((r for r in find_schedules(api, wanted.name) if r.recurring_run_id not in earlier_ids), None),
    )


def _delete(api: Connection, recurring_runs: list[Any], *, force: bool) -> None:
    # A recurring run owns its runs: deleted in the default way it takes a working one along (servers from 2.16 on know this).
    policy = {"propagation_policy": "ORPHAN"} if force else {}
    for recurring in recurring_runs:
        try:
            api.call(
                "delete the recurring run",
                api.client.recurring_runs.recurring_run_service_delete_recurring_run,
                recurring_run_id=recurring.recurring_run_id,
                **policy,
            )
        except MissingError:
            continue  # somebody was faster, or the answer to our first request was lost


def _enable(api: Connection, recurring: Any) -> None:
    enable = api.client.recurring_runs.recurring_run_service_enable_recurring_run

    def enabled() -> Any | None:
        schedules = find_schedules(api, recurring.display_name)
        return next(
            (r for r in schedules if r.recurring_run_id == recurring.recurring_run_id and r.status == "ENABLED"), None
        )

    def send() -> bool:
        api.call("enable the recurring run", enable, recurring_run_id=recurring.recurring_run_id)
        return True

    api.create("enable the recurring run", send, enabled)


def _require_idle(api: Connection, recurring_runs: list[Any], *, force: bool) -> None:
    working = [
        run.run_id for recurring in recurring_runs for run in _runs_of(api, recurring) if run.state not in FINISHED
    ]
    if working and not force:
        raise TryAgainError(
            f"the schedule must have no working run while it is replaced or removed; got {', '.join(working)}. Wait for it, or"
            " pass --force"
        )


def _runs_of(api: Connection, recurring: Any) -> list[Any]:
    return api.pages(
        "list the schedule's runs",
        api.client.runs.run_service_list_runs,
        "runs",
        experiment_id=recurring.experiment_id,
        filter=equals("recurring_run_id", recurring.recurring_run_id),
        sort_by="created_at desc",
    )


def shown_time(time: datetime) -> str:
    """Return a firing as text."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z")
