"""`preflight`: everything that would stop a run on a cluster, found at once and before it starts. Changes nothing there."""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from components.errors import FashionTuningError, exit_code_of, one_line
from pipelines.commands.options import connection_options, parameter_options

if TYPE_CHECKING:
    from pipelines.profile import ClusterProfile

DEADLINE_SECONDS = 4.5
"""When the table is shown, whatever has not answered by then."""


@dataclass(frozen=True)
class Finding:
    """One thing that would stop a run, or that could not be found out.

    Attributes:
        check: What was looked at, for example `service account`.
        problem: "Subject must be rule; got value."
        remedy: What to do, often a command.
        exit_code: 69, 77 or 78; 0 for a warning, which stops nothing.
    """

    check: str
    problem: str
    remedy: str
    exit_code: int = os.EX_CONFIG

    @classmethod
    def of(cls, check: str, error: BaseException, *, warning: bool = False) -> "Finding":
        """Make a finding of an error's "problem. Remedy." text."""
        problem, _, remedy = one_line(error).rpartition(". ")
        code = exit_code_of(error)
        if code not in (os.EX_UNAVAILABLE, os.EX_NOPERM, os.EX_CONFIG):
            code = os.EX_CONFIG if code == os.EX_USAGE else os.EX_UNAVAILABLE
        if not problem:
            problem, remedy = remedy, _REMEDIES[code]
        return cls(check, problem, remedy, 0 if warning else code)


_REMEDIES = {
    os.EX_UNAVAILABLE: "Check the network, and try again",
    os.EX_NOPERM: "Ask the owner for that permission, see docs/cluster.md",
    os.EX_CONFIG: "Correct the cluster profile, see docs/cluster.md",
}
"""For errors that name none themselves."""


Check = Callable[[], Iterable[Finding]]


@click.command("preflight")
@connection_options
@parameter_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
@click.pass_context
def preflight_command(
    context_: click.Context,
    cluster: str,
    way: str,
    context: str,
    installation: str,
    debug: bool,  # noqa: ARG001 - taken from the arguments before anything can fail
    preset: str,
    datasets: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check what would stop a run: cluster, permissions, secrets, GPUs, quota, store, images, sources.

    Takes the options of `submit`, and exits with 0, 69 (unavailable), 77 (permission) or 78 (configuration).
    """
    from pipelines.commands.options import checked_parameters
    from pipelines.profile import load_profile

    profile = load_profile(cluster)
    parameters = checked_parameters(profile, preset, settings, datasets)
    connection = {"way": way, "context": context, "installation": installation}
    names, findings = run_checks(all_checks(profile, parameters, connection))
    code = max((finding.exit_code for finding in findings), default=0)
    if as_json:
        rows = [asdict(finding) for finding in findings]
        click.echo(
            json.dumps({"cluster": profile.name, "exit_code": code, "checks": names, "findings": rows}, indent=1)
        )
    else:
        show(profile.name, names, findings)
    context_.exit(code)


def all_checks(profile: "ClusterProfile", parameters: dict[str, Any], connection: dict[str, str]) -> dict[str, Check]:
    """Return every check of a cluster by its name."""
    from pipelines.preflight.kubernetes import kubernetes_checks
    from pipelines.preflight.services import service_checks

    return {
        **kubernetes_checks(profile, parameters, connection["context"]),
        **service_checks(profile, parameters, connection),
    }


def run_checks(checks: dict[str, Check], deadline_seconds: float = DEADLINE_SECONDS) -> tuple[list[str], list[Finding]]:
    """Run all checks at the same time.

    Args:
        checks: By name; each yields its findings and may raise one of our errors, which becomes a finding.
        deadline_seconds: A check that takes longer becomes a finding itself.

    Returns:
        The checks' names, and all findings in the checks' order, errors before warnings.
    """
    pool = ThreadPoolExecutor(max_workers=len(checks), thread_name_prefix="preflight")
    futures = {name: pool.submit(_findings, name, check) for name, check in checks.items()}
    wait(futures.values(), timeout=deadline_seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    findings: list[Finding] = []
    for name, future in futures.items():
        if future.done():
            findings += future.result()
        else:
            problem = f"{name} must answer within {deadline_seconds:g} s; got nothing"
            findings.append(Finding(name, problem, "Check the network between here and there", os.EX_UNAVAILABLE))
    # Checks that share a connection fail alike: the first one speaks for all.
    first = {finding.problem: finding for finding in reversed(findings)}
    distinct = [finding for finding in findings if first[finding.problem] is finding]
    return list(checks), sorted(distinct, key=lambda finding: finding.exit_code == 0)


def _findings(name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except FashionTuningError as error:
        return [Finding.of(name, error)]


def show(cluster: str, names: list[str], findings: list[Finding]) -> None:
    """Print one table with every finding and its remedy."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    failed = {finding.check for finding in findings}
    if findings:
        table = Table(title=f"Preflight of {cluster}", title_justify="left", show_lines=True)
        for heading in ("", "Check", "Problem", "Remedy"):
            table.add_column(heading, overflow="fold")
        for finding in findings:
            kind = f"[red]{finding.exit_code}[/red]" if finding.exit_code else "[yellow]warning[/yellow]"
            table.add_row(kind, *(escape(text) for text in (finding.check, finding.problem, finding.remedy)))
        console.print(table)
    errors = sum(finding.exit_code > 0 for finding in findings)
    passed = ", ".join(name for name in names if name not in failed)
    console.print(f"{errors} errors, {len(findings) - errors} warnings. Passed: {escape(passed or 'nothing')}")
