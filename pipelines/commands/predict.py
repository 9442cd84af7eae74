"""`predict` classifies pictures with a model and writes CSV or JSON."""

import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from components.errors import DataError, ParameterError, using
from components.text import clean, csv_cell
from pipelines.commands import DEBUG_OPTION
from pipelines.paths import OutputFile, UserPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.evaluation.predict import Answer

SECONDS_BETWEEN_LINES = 10.0
"""How often a line says how far it is, where there is no terminal."""


@click.command("predict")
@click.argument("dataset")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...", type=UserPath())
@click.option(
    "--study-root", default="", metavar="URI", help="Where the champion is: gs://..., s3://... or a directory."
)
@click.option(
    "--model", type=UserPath(dir_okay=False), metavar="FILE", help="An exported ONNX, in place of the champion."
)
@click.option("--top", default=1, show_default=True, type=click.IntRange(1, 100), help="Classes for each picture.")
@click.option("--format", "form", default="csv", show_default=True, type=click.Choice(["csv", "json"]))
@click.option("--out", type=OutputFile(), help="File for the answers; default: the standard output.")
@DEBUG_OPTION
def predict_command(
    dataset: str,
    images: tuple[Path, ...],
    study_root: str,
    model: Path | None,
    top: int,
    form: str,
    out: Path | None,
) -> None:
    """Say which class the pictures IMAGES show: files, folders, zip or tar archives, arrays of images.

    The model is the champion of DATASET under --study-root, or --model. Every picture has a line with its class and the
    class's probability; one that cannot be read is named on stderr and stops nothing, and the exit code is then 65.
    """
    if bool(study_root) == (model is not None):
        raise ParameterError("the model must be given as --study-root URI or as --model FILE, one of them; see --help")
    if out is not None:
        _refuse_to_overwrite(out, [*images, *([model] if model else [])])
    from components.data.sources.pictures import Pictures
    from components.evaluation.predict import Classifier

    num_bad = 0
    found = Classifier.of_file(model, dataset) if model else Classifier.of_champion(study_root, dataset)
    with closing(Pictures(images)) as pictures, _progress(len(pictures), out is None) as step, _output(out) as file:
        write = _writer(form, file, min(top, len(found.classes)))
        for answer in found.answers(pictures, top):
            write(answer)
            num_bad += bool(answer.error)
            step(answer)
        write(None)
    if num_bad:
        raise DataError(
            f"every picture must be readable; got {num_bad:,} of {len(pictures):,} that are not, named above."
            " The others have their answers"
        )


def _writer(form: str, file: TextIO, top: int) -> "Callable[[Answer | None], None]":
    """Return what writes one answer, and at the end of all of them None."""
    if form == "csv":
        rows = csv.writer(file, lineterminator="\n")
        numbered = [("class", "probability"), *((f"class_{n}", f"probability_{n}") for n in range(2, top + 1))]
        rows.writerow(["image", *(name for pair in numbered for name in pair), "error"])

        def write_row(answer: "Answer | None") -> None:
            if answer is not None:
                told = [text for name, probability in answer.top for text in (name, str(probability))]
                rows.writerow(map(csv_cell, [answer.name, *told, *[""] * (2 * top - len(told)), answer.error]))

        return write_row
    separator = "[\n"

    def write_object(answer: "Answer | None") -> None:
        nonlocal separator
        if answer is None:
            file.write("\n]\n")
            return
        entry: dict[str, Any] = {"image": answer.name}
        if answer.error:
            entry["error"] = answer.error
        else:
            # The shortest text that gives the same float32 again.
            entry["predictions"] = [{"class": name, "probability": float(str(p))} for name, p in answer.top]
        file.write(separator + json.dumps(entry, ensure_ascii=False))
        separator = ",\n"

    return write_object


def _refuse_to_overwrite(out: Path, read: list[Path]) -> None:
    """Raise `ParameterError` where the answers would take the place of what is read: a picture, an archive, the model."""
    from components.data.readers.archives import is_archive
    from components.data.readers.pairing import IMAGE_SUFFIXES

    is_picture = is_archive(out.name) or out.suffix.lower() in (*IMAGE_SUFFIXES, ".npy")
    for path in read if out.exists() else ():
        if path.exists() and (out.samefile(path) or (is_picture and out.resolve().is_relative_to(path.resolve()))):
            raise ParameterError(f"--out must be another file than those that are read; got {out}. Correct the path")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Yield where the answers go; a file appears when it is whole."""
    if path is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    is_replaced = path.is_file() or not path.exists()  # neither a pipe nor a device
    path = path.resolve() if is_replaced else path  # a link stays a link
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial") if is_replaced else path
    try:
        with using(path):
            file = partial.open("w", encoding="utf-8", newline="")
        with file:
            yield file
        if is_replaced:
            with using(path):
                partial.replace(path)
    finally:
        if is_replaced:
            partial.unlink(missing_ok=True)


@contextmanager
def _progress(total: int, shares_terminal: bool) -> "Iterator[Callable[[Answer], None]]":
    """Yield what is called with every answer: it names bad pictures and shows how far the work is, all of it on stderr.

    Args:
        total: Number of pictures.
        shares_terminal: Whether the answers go to the standard output; on a terminal, they are progress enough.
    """
    started = said = time.monotonic()
    done = 0
    bar = None
    if sys.stderr.isatty() and not (shares_terminal and sys.stdout.isatty()):
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        bar = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # the answers are for whoever reads stdout, not for the bar's console
            redirect_stderr=False,
        )

    def speed() -> str:
        seconds = time.monotonic() - started
        return f"{done:,} of {total:,} pictures in {seconds:.1f} s, {done / max(seconds, 1e-9):,.0f} a second"

    def say(text: str) -> None:
        if bar:
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    with bar or nullcontext():
        task = bar.add_task("pictures", total=total) if bar else None

        def step(answer: "Answer") -> None:
            nonlocal done, said
            done += 1
            if answer.error:
                say(f"{clean(answer.name)}: {answer.error}")
            if bar and task is not None:
                bar.advance(task)
            elif time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                say(speed())

        yield step
    click.echo(speed(), err=True)
