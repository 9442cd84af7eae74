"""`champion` shows which model of a dataset is in use, goes back to the one before, and hands it to servers."""

import getpass
import json
from typing import Any

import click

from components.errors import DataError
from components.text import approach_name, clean, percent
from pipelines.commands import DEBUG_OPTION

NUM_SHOWN = 20

_root_option = click.option(
    "--study-root", required=True, metavar="URI", help="Where the champions are: gs://..., s3://... or a directory."
)


@click.group("champion")
def champion_group() -> None:
    """Look at the champion of a dataset, go back to an earlier one, hand it to servers, or register it."""


@champion_group.command("show")
@click.argument("dataset")
@_root_option
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@DEBUG_OPTION
def show_command(dataset: str, study_root: str, as_json: bool) -> None:
    """Show the champion of DATASET and those before it, newest first."""
    from components.evaluation.champion import gate

    records = gate.show(study_root, dataset)
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    if not records:
        raise DataError(
            f"champion of {clean(dataset)} must exist under {study_root}; there is none. Promote a model first"
        )
    for number, record in enumerate(records[:NUM_SHOWN]):
        click.echo(_line(record, is_champion=number == 0))
    if len(records) > NUM_SHOWN:
        click.echo(f"... and {len(records) - NUM_SHOWN} earlier ones; --json shows all")


@champion_group.command("rollback")
@click.argument("dataset")
@_root_option
@DEBUG_OPTION
def rollback_command(dataset: str, study_root: str) -> None:
    """Make the model that was champion of DATASET before the present one champion again, as a new version."""
    from components.evaluation.champion import gate

    record = gate.rollback(study_root, dataset, {"id": "", "by": _user()})
    click.echo(_line(record, is_champion=True))


@champion_group.command("export")
@click.argument("dataset")
@_root_option
@click.option(
    "--to", required=True, metavar="DIR", help="Folder, or gs://... or s3://... prefix, for the model repository."
)
@click.option(
    "--service-account", default="", metavar="NAME", help="Kubernetes service account that may read the bucket."
)
@DEBUG_OPTION
def export_command(dataset: str, study_root: str, to: str, service_account: str) -> None:
    """Write the champion of DATASET as a model repository that Triton serves, with a manifest for KServe."""
    from components.evaluation.serving import MANIFEST, export_champion

    exported = export_champion(study_root, dataset, to, service_account)
    for file in exported.files:
        click.echo(file)
    if exported.storage_uri:
        click.echo(f"{MANIFEST} serves {exported.storage_uri}", err=True)
    else:
        click.echo(
            f"there is no {MANIFEST}: KServe serves from buckets only, and neither --study-root nor --to is one",
            err=True,
        )


@champion_group.command("register")
@click.argument("dataset")
@_root_option
@click.option(
    "--registry", required=True, metavar="URL", help="Kubeflow's Model Registry, for example http://HOST:8080."
)
@DEBUG_OPTION
def register_command(dataset: str, study_root: str, registry: str) -> None:
    """Register the champion of DATASET in Kubeflow's Model Registry, once."""
    from components.evaluation.registry import register

    version, is_new = register(study_root, dataset, registry)
    click.echo(f"version {version} of {dataset} {'is registered' if is_new else 'was registered before'} in {registry}")


def _line(record: dict[str, Any], *, is_champion: bool) -> str:
    head = f"{'champion' if is_champion else 'before  '} {record['version']:>4}"
    if "error" in record:
        return f"{head}  {clean(record['error'])}"
    scores = record.get("figures") or {}
    accuracy = scores.get("accuracy")
    parts = [
        head,
        clean(record["created"], 25),
        approach_name(record["approach"]),
        percent(accuracy, 2) if isinstance(accuracy, (int, float)) else "",
        record["sha256"][:12],
        f"{clean(record['decision'], 20)}: {clean(record['reason'])}",
    ]
    return "  ".join(part for part in parts if part)


def _user() -> str:
    """Return who rolls back, for the record; a container may have no user name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
