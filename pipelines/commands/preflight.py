"""`preflight` finds everything that would stop a run on a cluster, before it starts. It changes nothing there."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import Reach, checked_parameters, connection_options, parameter_options
from pipelines.preflight.findings import Check, Outcome, run_checks
from pipelines.presets import Asked

if TYPE_CHECKING:
    from pipelines.profile import ClusterProfile


@click.command("preflight")
@connection_options
@parameter_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
@click.pass_context
def preflight_command(
    click_context: click.Context,
    reach: Reach,
    asked: Asked,
    as_json: bool,
) -> None:
    """Check what would stop a run: cluster, permissions, secrets, GPUs, quota, store, images, sources.

    Takes the options of `submit`, and exits with 0, 69 (unavailable), 77 (permission) or 78 (configuration).
    """
    from pipelines.profile import load_profile

    profile = load_profile(reach.cluster)
    parameters = checked_parameters(profile, asked)
    connection = {"way": reach.way, "context": reach.context, "installation": reach.installation}
    outcome = run_checks(all_checks(profile, parameters, connection))
    if as_json:
        click.echo(json.dumps({"cluster": profile.name, "exit_code": outcome.exit_code, **asdict(outcome)}, indent=1))
    else:
        show(profile.name, outcome)
    click_context.exit(outcome.exit_code)


def all_checks(profile: "ClusterProfile", parameters: dict[str, Any], connection: dict[str, str]) -> dict[str, Check]:
    """Return every check of a cluster by its name."""
    from pipelines.preflight.kubernetes import kubernetes_checks
    from pipelines.preflight.services import service_checks

    return {
        **kubernetes_checks(profile, parameters, connection["context"]),
        **service_checks(profile, parameters, connection),
    }


def show(cluster: str, outcome: Outcome) -> None:
    """Print one table with every finding and its remedy, and what passed or could not be looked at."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if findings := outcome.findings:
        table = Table(title=f"Preflight of {cluster}", title_justify="left", show_lines=True)
        for heading in ("", "Check", "Problem", "Remedy"):
            table.add_column(heading, overflow="fold")
        for finding in findings:
            kind = f"[red]{finding.exit_code}[/red]" if finding.exit_code else "[yellow]warning[/yellow]"
            table.add_row(kind, *(escape(text) for text in (finding.check, finding.problem, finding.remedy)))
        console.print(table)
    errors = sum(finding.exit_code > 0 for finding in findings)
    text = f"{errors} errors, {len(findings) - errors} warnings. Passed: {', '.join(outcome.passed) or 'nothing'}"
    if outcome.unchecked:
        text += f". Not checked, for a reason above: {', '.join(outcome.unchecked)}"
    console.print(escape(text))
