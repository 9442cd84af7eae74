"""`run` and `study` show a study by these tables on a terminal, and elsewhere by one line for each change."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.search.course import Course, RunningTrial
from components.search.samplers.choice import describe
from components.search.tables import best_so_far
from components.search.trial import Ledger, Trial
from components.text import duration, printable

SILENT_SECONDS = 30.0
"""Workers beat every 15 s; one that was not heard for longer is shown as silent."""
_LEAST_ROWS = 4


def head(ledger: Ledger) -> list[str]:
    """Return what a study was asked to do, how far it is, and its best trial."""
    spec, best = ledger.spec, ledger.best()
    states = [
        f"{n} {status}"
        for status in ("completed", "pruned", "diverged", "failed", "running", "waiting")
        if (n := ledger.count(status))
    ]
    lines = [
        f"study {ledger.name}: {spec.get('approach')} on {spec.get('dataset')}, {describe(spec)},"
        f" {'with' if spec.get('pruning') else 'without'} pruning",
        f"{sum(t.is_finished for t in ledger.trials)} of {spec.get('trials')} trials done ({', '.join(states) or 'none yet'}),"
        f" {ledger.device_seconds:.1f} of {60 * float(spec.get('minutes', 0)):.0f} device-seconds",
    ]
    if ledger.reused:
        lines.append(f"{len(ledger.reused)} trials reused from earlier studies")
    if best is not None:
        since = next((p for p in best_so_far(ledger) if p.number == best.number), None)
        after = f", after {since.device_seconds:.1f} device-seconds" if since else ""
        lines.append(f"best: {best.score:.4f}, trial {best.number}{after}")
    return [printable(line) for line in lines]


def trials_table(ledger: Ledger, rows: int | None = None) -> Table:
    """Return the trials as a table.

    Args:
        ledger: The study.
        rows: Show only so many, the newest; None for all.
    """
    best, table = ledger.best(), Table(box=None, pad_edge=False)
    for column in ("trial", "status", "score", "best", "epochs", "device s"):
        table.add_column(column, justify="left" if column == "status" else "right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("hyperparameters", overflow="fold" if rows is None else "ellipsis", no_wrap=rows is not None)
    so_far = {p.number: p.best for p in best_so_far(ledger)}
    for trial in ledger.trials if rows is None else ledger.trials[-rows:]:
        reached = so_far.get(trial.number)
        cells = (
            str(trial.number),
            trial.status,
            _score(trial.score),
            _score(reached),
            str(trial.epochs),
            f"{trial.device_seconds:.1f}",
            trial.worker,
            _describe(trial),
        )
        is_best = best is not None and trial.number == best.number
        table.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if is_best else None)
    return table


def live_view(course: Course, height: int) -> RenderableType:
    """Return a study as it stands, for a terminal of so many lines: running trials first, then the newest others."""
    ledger = course.ledger
    lines = [*head(ledger), time_left(course)]
    parts: list[RenderableType] = [Text(line) for line in lines if line]
    if course.running:
        parts.append(running_table(course))
    free = height - len(parts) - len(course.running) - 3
    finished = Ledger(name=ledger.name, spec=ledger.spec, trials=tuple(t for t in ledger.trials if t.is_finished))
    if finished.trials:
        parts.append(trials_table(finished, max(_LEAST_ROWS, free)))
    return Group(*parts)


def running_table(course: Course) -> Table:
    """Return who works on what, how far it is, and how long it may take."""
    table = Table(box=None, pad_edge=False, style="yellow")
    for column in ("running", "worker", "epoch", "score so far", "time left"):
        table.add_column(column, justify="left" if column == "worker" else "right", no_wrap=True)
    for trial in course.running:
        cells = (str(trial.number), trial.worker, f"{trial.epoch} of {trial.epochs}", _score(trial.score), _left(trial))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def time_left(course: Course) -> str:
    """Return how long the study takes, in words; "" where nothing tells."""
    if course.is_finished:
        return "nothing is left to do"
    return "" if course.seconds_left is None else f"about {duration(course.seconds_left)} left"


def changes(before: Course | None, now: Course, *, epochs: bool = True) -> Iterator[str]:
    """Yield one line for each thing that happened to a study between two looks.

    Args:
        before: What was seen before; None at first.
        now: What is seen now.
        epochs: Tell who begins a trial and each epoch, not only how trials end.
    """
    earlier = {t.number: t for t in before.ledger.trials} if before else {}
    silent = {t.number for t in before.running if t.silent_seconds > SILENT_SECONDS} if before else set()
    best = now.ledger.best()
    running = {t.number: t for t in now.running}
    for trial in now.ledger.trials:
        known = earlier.get(trial.number)
        name = f"trial {trial.number}"
        if trial.is_finished and not (known and known.is_finished):
            score = "no score" if trial.score is None else f"{trial.score:.4f}"
            standing = f" (best {best.score:.4f}, trial {best.number})" if best else ""
            yield printable(
                f"{name}: {trial.status} after {trial.epochs} epoch{'' if trial.epochs == 1 else 's'}, {score}{standing}"
            )
        elif shown := running.get(trial.number):
            if epochs and (known is None or known.status != "running" or known.worker != trial.worker):
                yield printable(f"{name}: {trial.worker} works on it, {_describe(trial)}")
            if epochs and trial.epochs > (known.epochs if known else 0):
                left = f", {_left(shown)}" if _left(shown) else ""
                yield f"{name}: epoch {shown.epoch} of {shown.epochs}, {_score(shown.score)}{left}"
            if shown.silent_seconds > SILENT_SECONDS and trial.number not in silent:
                yield printable(f"{name}: {trial.worker} has not been heard for {duration(shown.silent_seconds)}")
    if now.is_finished and not (before and before.is_finished):
        yield from head(now.ledger)[1:]


def _left(trial: RunningTrial) -> str:
    if trial.silent_seconds > SILENT_SECONDS:
        return f"silent for {duration(trial.silent_seconds)}"
    return "" if trial.seconds_left is None else f"at most {duration(trial.seconds_left)}"


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _describe(trial: Trial) -> str:
    values = " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial.hyperparameters.items()
    )
    notes = [note for note in (f"from {trial.reused_from}" if trial.reused_from else "", trial.error) if note]
    return f"{values} ({'; '.join(notes)})" if notes else values
