"""`run`: the whole pipeline on this machine."""

import json
from datetime import datetime
from pathlib import Path

import click

from components.notification.templates import FORMATS
from components.notification.webhook import WEBHOOK_VARIABLE
from pipelines.commands.options import parameter_options
from pipelines.paths import UserPath
from pipelines.presets import Asked


@click.command("run")
@parameter_options
@click.option("--out", type=UserPath(file_okay=False), help="Folder of the run; again, it resumes.")
@click.option("--containers", is_flag=True, help="Run each step in its image (docker or a podman socket).")
@click.option(
    "--notify",
    "message_format",
    type=click.Choice(FORMATS),
    help=f"Tell the webhook in ${WEBHOOK_VARIABLE} how it ended.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("--debug", is_flag=True, help="Keep tracebacks in run.log.")
def run_command(
    asked: Asked, out: Path | None, containers: bool, message_format: str | None, as_json: bool, debug: bool
) -> None:
    """Run the whole pipeline on this machine.

    Artifacts, studies, logs, report.html and summary.json are left in the run's folder, and parameters.yaml, with which
    --parameters repeats it. Started again with the same --out, it goes on where it stood; without other flags it takes the
    parameters of the first start.
    """
    from pipelines.local.run import run_here
    from pipelines.run_results import show_scores

    out = (out or Path("runs") / datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")).resolve()
    seconds = run_here(asked, out, containers=containers, message_format=message_format, debug=debug)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    report = out / "report.html"
    if as_json:
        result = {"out": str(out), "report": str(report), "seconds": round(seconds, 1), "summary": summary}
        click.echo(json.dumps(result, indent=1))
        return
    show_scores(summary)
    click.echo(f"finished in {seconds:.0f} s; report: {report}")
