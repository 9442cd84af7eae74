"""Watching a run on the cluster until it ends."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from components.errors import DataError, TerminatedError, TryAgainError, UnavailableError
from pipelines.kubeflow.connection import Connection, MissingError

FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
"""States that a run never leaves. The SDK's own wait does not know CANCELED and would wait for ever."""
POLL_SECONDS = 10.0
PATIENCE_SECONDS = 900.0
"""How long the API may be away while a run is watched: long enough for a cluster upgrade."""


class RunFailedError(DataError):
    """The run ended without a result."""


class StepTable:
    """The steps of a run as they change: a live table on a terminal, one line per change elsewhere.

    Args:
        steps: Names of the steps in the order of the graph; the server's other nodes are not shown.
        console: Where to.
    """

    def __init__(self, steps: Sequence[str], console: Console) -> None:
        self._steps, self._console = steps, console
        self._shown: dict[str, str] = {}
        self._state = ""
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> "StepTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        seconds = time.monotonic() - self._started
        self._console.print(f"[{seconds:7.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)

    def update(self, run: Any) -> None:
        """Show what is new about a run."""
        states = step_states(run, self._steps)
        for step, text in states.items():
            if self._shown.get(step) != text and not self._live:
                self.say(f"{step}: {text}")
        if run.state != self._state and not self._live:
            self.say(f"run: {(run.state or 'pending').lower()}")
        self._shown, self._state = states, run.state
        if self._live:
            table = Table(box=None, title=f"run: {(run.state or 'pending').lower()}", title_justify="left")
            table.add_column("step", min_width=20)
            table.add_column("state")
            for step, text in states.items():
                table.add_row(step, text)
            self._live.update(table)


def step_states(run: Any, steps: Sequence[str]) -> dict[str, str]:
    """Return the state of each step that has begun, for example `1 running, 3 succeeded`, in the order of the graph.

    Args:
        run: As the API shows it; a step in a loop appears once per iteration.
        steps: Names of the steps.
    """
    counts: dict[str, Counter[str]] = {}
    for task in (run.run_details.task_details if run.run_details else None) or []:
        counts.setdefault(task.display_name, Counter())[(task.state or "pending").lower()] += 1
    return {
        step: next(iter(counts[step]))
        if counts[step].total() == 1
        else ", ".join(f"{n} {s}" for s, n in sorted(counts[step].items()))
        for step in steps
        if step in counts
    }


def watch(connection: Connection, run_id: str, table: StepTable, timeout_seconds: float) -> Any:
    """Wait until a run ends, whatever happens to the API meanwhile.

    Args:
        connection: To the server.
        run_id: The run.
        table: Gets every state.
        timeout_seconds: How long to wait; the run goes on after it.

    Returns:
        The finished run, in any of the states `FINISHED`.

    Raises:
        TryAgainError: It has not ended in time.
        UnavailableError: The API was away for longer than `PATIENCE_SECONDS`.
        RunFailedError: Somebody deleted the run.
    """
    started = last_answer = time.monotonic()
    away = False
    while True:
        try:
            run = connection.call("look at the run", connection.client.runs.run_service_get_run, run_id=run_id)
            last_answer = time.monotonic()
            if away:
                table.say("the API answers again")
            away = False
            table.update(run)
            if run.state in FINISHED:
                return run
        except MissingError as error:
            raise RunFailedError(
                f"run {run_id} must exist until it ends; got a deleted run. Start another one"
            ) from error
        except (UnavailableError, TryAgainError) as error:
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise UnavailableError(
                    f"the API must answer while run {run_id} is watched; got none for {PATIENCE_SECONDS:g} s: {error}. The"
                    " run goes on; the same command finds it again"
                ) from error
            if not away:
                table.say(f"the API does not answer; still waiting: {error}")
            away = True
        if time.monotonic() - started > timeout_seconds:
            raise TryAgainError(
                f"run {run_id} must end within {timeout_seconds / 60:g} minutes; got a run that still works. It goes on; the"
                " same command finds it again"
            )
        time.sleep(POLL_SECONDS)


def require_success(run: Any, steps: Sequence[str], link: str) -> None:
    """Raise what a finished run's state means; nothing where it succeeded.

    Raises:
        TerminatedError: Somebody cancelled it.
        RunFailedError: It failed, or was skipped.
    """
    if run.state == "SUCCEEDED":
        return
    if run.state == "CANCELED":
        raise TerminatedError(
            f"run {run.run_id} must end by itself; got cancelled. Its finished trials are kept. See {link}"
        )
    failed = [step for step, text in step_states(run, steps).items() if "failed" in text or "error" in text]
    said = f" in {', '.join(failed)}" if failed else ""
    reason = f" ({run.error.message})" if run.error and run.error.message else ""
    raise RunFailedError(
        f"run {run.run_id} must succeed; got {run.state.lower()}{said}{reason}. See the step's log at {link}"
    )
