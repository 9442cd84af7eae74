"""`sample-data` and `ingest` let you look at data before you spend anything on it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.errors import ParameterError, using
from components.parameters import DataSettings
from components.runtime import set_up_logging
from pipelines.commands import DEBUG_OPTION
from pipelines.paths import UserPath

DEFAULTS = DataSettings()


@click.command("sample-data")
@click.argument("directory", type=UserPath(file_okay=False))
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="The same seed draws the same files."
)
@DEBUG_OPTION
def sample_data_command(directory: Path, seed: int) -> None:
    """Write the generated sample in the published formats of both datasets."""
    from components.data.sample.sample import write_sample

    with using(directory):
        if directory.exists() and any(directory.iterdir()):
            raise ParameterError(f"DIRECTORY must be new or empty; got {directory}")
        write_sample(directory, seed=seed)
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        click.echo(f"{path}  {path.stat().st_size:,} bytes")


def _setting(name: str, text: str | None = None) -> Callable[[Any], Any]:
    """Return an option for one of the settings, whose rule checks what it is given, together with that of the others."""
    flag = "--" + name.replace("_", "-")
    return click.option(flag, default=str(getattr(DEFAULTS, name)), show_default=True, metavar="NUMBER", help=text)


@click.command("ingest")
@click.argument("dataset", metavar="NAME=SOURCE")
@click.option("--out", required=True, type=UserPath(file_okay=False), help="Folder for the results.")
@_setting("validation_fraction")
@_setting("test_fraction")
@_setting("min_class_count")
@_setting("limit", "0 keeps all.")
@_setting("seed")
@DEBUG_OPTION
def ingest_command(dataset: str, out: Path, **settings: str) -> None:
    """Ingest one dataset and nothing else: train_data, test_data and ingest_report under --out."""
    from components.data.ingest import ingest
    from components.models.mlp.size import check_data

    checked = DataSettings.of_flags(settings)
    os.environ.setdefault("FASHION_TUNING_LOG_LEVEL", "INFO")
    set_up_logging()
    info = ingest(
        dataset,
        settings=checked,
        train_dir=out / "train_data",
        test_dir=out / "test_data",
        report_dir=out / "ingest_report",
    )
    check_data(out / "train_data")
    click.echo(json.dumps({"name": info.name, "classes": len(info.classes), **info.counts, "hash": info.content_hash}))
