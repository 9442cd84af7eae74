"""`study watch` reads a study again and again and shows it."""

import json
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from components.errors import FashionTuningError, TryAgainError, UnavailableError, one_line
from components.search.course import Course, course_of, look
from components.search.study.study import Study
from components.search.tables import overview
from components.search.trial import Ledger
from pipelines.local.study_view import changes, head, live_view

NEAR_SECONDS, FAR_SECONDS = 1.0, 5.0
"""Pause between two looks at a directory, and at a bucket."""


def watch(study: Study | Ledger, *, once: bool, as_json: bool, every_seconds: float | None) -> None:
    """Show a study until it is finished.

    Args:
        study: An open study, or the ledger of one that has ended.
        once: Look once.
        as_json: Print one JSON object for each look.
        every_seconds: Pause between two looks; None for what the store bears well.
    """
    console = Console(highlight=False)
    if as_json:
        for seen in _looks(study, once, every_seconds, console):
            click.echo(json.dumps({"time": time.time(), **overview(seen.ledger), **seen.to_json()}))
    elif console.file.isatty():
        with Live(console=console, refresh_per_second=4) as live:
            for seen in _looks(study, once, every_seconds, console):
                live.update(live_view(seen, console.height))
    else:
        before = None
        for seen in _looks(study, once, every_seconds, console):
            if before is None:
                # The changes end with how far a finished study is.
                _say(console, *head(seen.ledger)[: 1 if seen.is_finished else None])
            _say(console, *changes(before, seen))
            before = seen


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _looks(study: Study | Ledger, once: bool, every_seconds: float | None, console: Console) -> Iterator[Course]:
    """Yield what is seen, until nothing is left to do; a store that is away for a while is waited for."""
    if isinstance(study, Ledger):
        yield course_of(study)
        return
    pause = every_seconds or (FAR_SECONDS if "://" in study.store.uri else NEAR_SECONDS)
    while True:
        try:
            seen = look(study)
        except (TryAgainError, UnavailableError) as error:
            if once:
                raise
            _warn(console, error)
        else:
            yield seen
            if once or seen.is_finished:
                return
        time.sleep(pause)


def _warn(console: Console, error: FashionTuningError) -> None:
    if console.file.isatty():
        console.print(Text(f"looking again: {one_line(error)}", style="yellow"))
    else:
        click.echo(f"looking again: {one_line(error)}", err=True)
