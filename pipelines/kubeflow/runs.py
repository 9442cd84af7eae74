"""Watching a run on the cluster until it ends."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from components.errors import DataError, TerminatedError, TryAgainError, UnavailableError
from components.notification.workflow import Workflow
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.failures import MissingError
from pipelines.kubeflow.states import FINISHED, is_cancelled, state_of
from pipelines.kubeflow.workflow import UnreadableError, WorkflowReader

POLL_SECONDS = 10.0
PATIENCE_SECONDS = 900.0
"""How long the API may be away while a run is watched: long enough for a cluster upgrade."""
STILL_SECONDS = 60.0
"""How long the server's step states may stay the same before the workflow itself is asked for them."""
FROZEN = "step states: this server does not show them from 1 MB on"
STALE = (
    "the API shows the run as {shown}, in Kubernetes it is {phase}: what reports to the API is stuck. Restart it with kubectl"
    " rollout restart deployment/ml-pipeline-persistenceagent, in Kubeflow's namespace. Until then step states are read from"
    " the workflow"
)


class RunFailedError(DataError):
    """The run ended without a result."""


class StepTable:
    """The steps of a run as they change: a live table on a terminal, one line per change elsewhere.

    Args:
        steps: Names of the steps in the order of the graph; the server's other nodes are not shown.
        console: The terminal or file to print to.
    """

    def __init__(self, steps: Sequence[str], console: Console) -> None:
        self._steps, self._console = steps, console
        self._shown: dict[str, str] = {}
        self._state = ""
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2) if console.file.isatty() else None

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

    def update(self, run: Any, counts: dict[str, Counter[str]]) -> None:
        """Show what is new about a run.

        Args:
            run: The run as the API shows it.
            counts: How many tasks of each step are in which state.
        """
        states = {step: _shown(counts[step]) for step in self._steps if step in counts}
        for step, text in states.items():
            if self._shown.get(step) != text and not self._live:
                self.say(f"{step}: {text}")
        state = state_of(run)
        if state != self._state and not self._live:
            self.say(f"run: {state}")
        self._shown, self._state = states, state
        if self._live:
            table = Table(box=None, title=f"run: {state}", title_justify="left")
            table.add_column("step", min_width=20)
            table.add_column("state")
            for step, text in states.items():
                table.add_row(step, text)
            self._live.update(table)


def step_counts(run: Any) -> dict[str, Counter[str]]:
    """Return how many tasks of each name are in which state, as the API shows them; one in a loop appears per iteration."""
    counts: dict[str, Counter[str]] = {}
    # The server has no word for what was left out because something before it failed.
    none = "not run" if run.state in FINISHED else "pending"
    for task in (run.run_details.task_details if run.run_details else None) or []:
        counts.setdefault(task.display_name, Counter())[(task.state or none).lower()] += 1
    return counts


def _shown(counts: Counter[str]) -> str:
    """Return for example `1 running, 3 succeeded`."""
    return next(iter(counts)) if counts.total() == 1 else ", ".join(f"{n} {s}" for s, n in sorted(counts.items()))


class StepStates:
    """The states of a run's steps: from the API, or from the workflow while the API does not have them.

    The API cannot read what Argo has packed, and it knows nothing while Kubeflow's persistence agent does not report to it.

    Args:
        reader: Reads the run's workflow.
        steps: Names of the steps.
        say: Gets one line where the states come from elsewhere, or from nowhere.
    """

    def __init__(self, reader: WorkflowReader, steps: Sequence[str], say: Callable[[str], None]) -> None:
        self._reader, self._steps, self._say = reader, steps, say
        self._last: tuple[str, dict[str, Counter[str]]] = ("", {})
        self._since = time.monotonic()
        self._packed = self._stale = self._told = False

    def of(self, run: Any) -> dict[str, Counter[str]]:
        """Return how many tasks of each step are in which state."""
        counts = step_counts(run)
        state = state_of(run)
        # A pending run's drivers write tasks of their own, whether or not the API hears of the workflow.
        seen = (state, {} if state == "pending" else counts)
        if seen != self._last:
            self._last, self._since = seen, time.monotonic()
        still = time.monotonic() - self._since >= STILL_SECONDS
        wrong = run.state in FINISHED and any(_is_open(counts[step]) for step in self._steps if step in counts)
        if self._packed or self._stale or still or wrong:
            self._since = time.monotonic()
            return self._from_workflow(run, wrong) or counts
        return counts

    def _from_workflow(self, run: Any, wrong: bool) -> dict[str, Counter[str]] | None:
        try:
            workflow = self._reader.read(run.run_id)
        except UnreadableError as error:
            if (wrong or self._packed) and not self._told:
                self._say(f"{FROZEN}, and the workflow cannot be read from here ({error})")
                self._told = True
            return None
        if workflow.is_packed and not self._packed:
            self._say(f"{FROZEN}; they are read from the workflow instead")
            self._packed = True
        stale = _is_stale(run, workflow)
        if stale != self._stale:
            self._say(
                STALE.format(shown=state_of(run), phase=workflow.phase) if stale else "the API is up to date again"
            )
            self._stale = stale
        return workflow.step_states(self._steps) if workflow.is_packed or stale else None


def _is_stale(run: Any, workflow: Workflow) -> bool:
    """Return whether the API has not heard for a while that the workflow began, or that it ended; it takes seconds."""
    if run.state in FINISHED:
        return False
    unheard = workflow.started_at if state_of(run) == "pending" else workflow.finished_at
    return unheard is not None and time.time() - unheard >= STILL_SECONDS / 2


def _is_open(counts: Counter[str]) -> bool:
    return any(counts[state] for state in ("pending", "running"))


def watch(connection: Connection, run_id: str, table: StepTable, states: StepStates, timeout_seconds: float) -> Any:
    """Wait until a run ends, whatever happens to the API meanwhile.

    Args:
        connection: To the server.
        run_id: The run.
        table: Gets every state.
        states: State of each step.
        timeout_seconds: How long to wait; the run goes on after it.

    Returns:
        The finished run, in any of the states `FINISHED`.

    Raises:
        TryAgainError: It has not ended in time.
        UnavailableError: The API was away for longer than `PATIENCE_SECONDS`.
        RunFailedError: Somebody deleted the run.
    """
    started = last_answer = time.monotonic()
    away = missed = False
    while True:
        try:
            run = connection.call("look at the run", connection.client.runs.run_service_get_run, run_id=run_id)
            last_answer = time.monotonic()
            if away:
                table.say("the API answers again")
            away = missed = False
            table.update(run, states.of(run))
            if run.state in FINISHED:
                return run
        except MissingError as error:
            if missed:
                raise RunFailedError(
                    f"run {run_id} must exist until it ends; got a deleted run. Start another one"
                ) from error
            missed = True  # asked again: while a port-forward starts anew, another program may answer at its port
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


def tell_cancelled(run: Any, reader: WorkflowReader) -> None:
    """Give a finished run the state CANCELED where only its workflow still tells that somebody cancelled it.

    The server can lose CANCELING from the history of a run that is cancelled in its first seconds.
    """
    if run.state == "FAILED" and not is_cancelled(run):
        with suppress(UnreadableError):
            if reader.read(run.run_id).is_cancelled:
                run.state = "CANCELED"


def failed_in(reader: WorkflowReader, run: Any, steps: Sequence[str]) -> list[str]:
    """Return what made a run fail: each failed pod with what it said, or where only the API can be asked, tasks' names."""
    try:
        workflow: Workflow | None = reader.read(run.run_id)
    except UnreadableError:
        workflow = None
    if workflow and (nodes := reader.failed_nodes(workflow)):
        return [str(node) for node in nodes]
    counts = step_counts(run)
    failed = [name for name in counts if counts[name]["failed"] or counts[name]["error"]]
    # A step that fails takes everything around it along: the innermost names come first.
    drivers = [name for name in failed if name.endswith("-driver")]
    return [name for name in steps if name in failed] or drivers or failed[:1]


def require_success(run: Any, failed: Callable[[], list[str]], see: str) -> None:
    """Raise what a finished run's state means; nothing where it succeeded.

    Args:
        run: The run as the API shows it.
        failed: Returns what made it fail.
        see: How a person gets to its page.

    Raises:
        TerminatedError: Somebody cancelled it.
        RunFailedError: It failed, or was skipped.
    """
    if run.state == "SUCCEEDED":
        return
    if is_cancelled(run):
        raise TerminatedError(
            f"run {run.run_id} must end by itself; got cancelled. Its finished trials are kept. See {see}"
        )
    names = failed()
    said = f" in {'; '.join(names)}" if names else ""
    reason = f" ({run.error.message})" if run.error and run.error.message else ""
    raise RunFailedError(
        f"run {run.run_id} must succeed; got {run.state.lower()}{said}{reason}. See the step's log at {see}"
    )
