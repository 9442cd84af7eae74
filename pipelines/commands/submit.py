"""`submit` starts one run on a cluster, of exactly this commit and only once, and watches it to its end."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from pipelines.commands.options import Reach, checked_parameters, connection_options, parameter_options, terminable
from pipelines.paths import OutputFile
from pipelines.presets import Asked

if TYPE_CHECKING:
    from pipelines.kubeflow.connection import Connection
    from pipelines.kubeflow.publish import Published
    from pipelines.profile import ClusterProfile


@click.command("submit")
@connection_options
@parameter_options
@click.option("--name", default="", help="Name of a run to start once: one that works or has succeeded is found again.")
@click.option("--again", is_flag=True, help="Start another run whatever is there.")
@click.option("--wait", is_flag=True, help="Watch the run; the exit code is that of its end.")
@click.option("--timeout-minutes", type=click.FloatRange(min=0, min_open=True), default=2880, show_default=True)
@click.option("--require-promotion", is_flag=True, help="With --wait: fail where a champion is not this run's model.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("--markdown", type=OutputFile(), help="Append the outcome to this file.")
def submit_command(
    reach: Reach,
    asked: Asked,
    name: str,
    again: bool,
    wait: bool,
    timeout_minutes: float,
    require_promotion: bool,
    dry_run: bool,
    as_json: bool,
    markdown: Path | None,
) -> None:
    """Start a run on a cluster.

    The pipeline is uploaded where this commit's version of it is not there yet. Run again, nothing is uploaded twice, and
    the run that it started is found as long as that works.
    """
    from components.parameters import shown_parameters
    from pipelines.kubeflow.artifacts import read_json
    from pipelines.kubeflow.package import make_package
    from pipelines.kubeflow.publish import check_size, publish, require_cluster
    from pipelines.kubeflow.runs import StepStates, StepTable, failed_in, require_success, tell_cancelled, watch
    from pipelines.kubeflow.states import state_of
    from pipelines.kubeflow.workflow import WorkflowReader
    from pipelines.profile import load_profile
    from pipelines.run_results import read_summary, require_promoted, show, write_markdown

    profile = load_profile(reach.cluster)
    require_cluster(profile)
    parameters = checked_parameters(profile, asked)
    check_size(parameters)
    display_parameters = shown_parameters(parameters)
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="fashion-tuning-") as scratch,
        reach.connect(profile) as api,
    ):
        package = make_package(Path(scratch), profile)
        published = publish(api, package, profile.experiment, say, dry_run=dry_run)
        run_name = name or default_name(asked.preset_name, published.version, parameters)
        run = None if again else earlier_run(api, published.experiment_id, run_name, say, once=bool(name))
        if dry_run:
            say(f"run {run_name}: {'is there already and would be found' if run else 'would be started'}")
            click.echo(
                json.dumps({"run": run_name, "version": published.version, "parameters": display_parameters}, indent=1)
            )
            return
        if run:
            say(f"run {run_name}: is there already, {state_of(run)}")
        else:
            run = start_run(api, published, run_name, parameters, profile)
            say(f"run {run_name}: started")
        link, see = api.link("runs", run.run_id), api.see("runs", run.run_id)
        say(f"see {see}")
        summary = None
        if wait:
            reader = WorkflowReader(api.workflows, api.context)
            with StepTable(package.steps, console) as table:
                states = StepStates(reader, package.steps, table.say)
                run = watch(api, run.run_id, table, states, timeout_minutes * 60)
            tell_cancelled(run, reader)
            if run.state == "SUCCEEDED":
                inside = bool(profile.environment.get("AWS_ENDPOINT_URL"))
                summary = read_summary(
                    parameters["study_root"],
                    run.run_id,
                    say,
                    lambda uri: read_json(api, uri, own_store=inside),
                    first_elsewhere=inside and "AWS_ENDPOINT_URL" not in os.environ,
                )
        result = {
            "run_id": run.run_id,
            "name": run_name,
            "state": state_of(run).upper(),
            "link": link,
            "reach": api.reach,
            "version": published.version,
            "parameters": display_parameters,
            "summary": summary,
        }
        if as_json:
            click.echo(json.dumps(result, indent=1))
        elif summary:
            show(summary, parameters["study_root"], run.run_id)
        if markdown:
            write_markdown(markdown, state_of(run), link, api.reach, summary, parameters["study_root"], run.run_id)
        if wait:
            require_success(run, lambda: failed_in(reader, run, package.steps), see)
            if require_promotion:
                require_promoted(summary)


def default_name(preset: str, version: str, parameters: dict[str, Any]) -> str:
    """Return a run's name that is the same for the same version and parameters."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    return f"{preset} {version} {digest}"


def runs_named(api: "Connection", experiment_id: str, name: str) -> list[Any]:
    """Return all runs of that name in the experiment, newest first."""
    from pipelines.kubeflow.connection import equals

    if not experiment_id:
        return []
    return api.pages(
        "look for the run",
        api.client.runs.run_service_list_runs,
        "runs",
        experiment_id=experiment_id,
        filter=equals("display_name", name),
        sort_by="created_at desc",
    )


def earlier_run(
    api: "Connection", experiment_id: str, name: str, say: Callable[[str], None], *, once: bool
) -> Any | None:
    """Return the newest run of that name that still works, or with `once` has succeeded; None where there is none."""
    from pipelines.kubeflow.states import can_be_taken_up, is_archived

    runs = runs_named(api, experiment_id, name)
    for run in runs:
        if is_archived(run):
            say(f"run {name}: {run.run_id} is archived, and is not taken up")
    return next((run for run in runs if can_be_taken_up(run, finished_too=once)), None)


def start_run(
    api: "Connection", published: "Published", name: str, parameters: dict[str, Any], profile: "ClusterProfile"
) -> Any:
    """Start a run, once: where the answer is lost, the run that appeared is taken."""
    from pipelines.kubeflow.publish import runtime_config

    models = api.client.api_models
    body = models.V2beta1Run(
        display_name=name,
        experiment_id=published.experiment_id,
        pipeline_version_reference=models.V2beta1PipelineVersionReference(
            pipeline_id=published.pipeline_id, pipeline_version_id=published.version_id
        ),
        runtime_config=runtime_config(models, parameters, profile),
        service_account=profile.service_account or None,
    )
    before = {run.run_id for run in runs_named(api, published.experiment_id, name)}

    def appeared() -> Any | None:
        return next((r for r in runs_named(api, published.experiment_id, name) if r.run_id not in before), None)

    make: Callable[[], Any] = lambda: api.call("start the run", api.client.runs.run_service_create_run, run=body)  # noqa: E731
    return api.create("start the run", make, appeared)
