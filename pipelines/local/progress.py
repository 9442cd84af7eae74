"""A local run shows its steps and trials while it works, and the result table at the end."""

import json
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from components.errors import FashionTuningError
from components.search.course import Course, look
from components.search.study.study import Study
from components.stores import open_store
from pipelines.local.study_view import changes, head, running_table, time_left

console = Console(stderr=True, highlight=False)
QUIET_SECONDS = 30.0
"""A study that has said nothing for so long tells each epoch of its trials."""
MARKS = {"started": "[yellow]running[/]", "finished": "[green]done[/]", "failed": "[red]failed[/]"}


class Progress:
    """A live table on a terminal, one line per change elsewhere.

    Args:
        out: The run's folder, with `events.jsonl`.
        study_root: Where the run's studies are; only those in a directory are shown.
        run_id: What their names begin with.

    Attributes:
        failed: The events of steps that failed, oldest first.
    """

    def __init__(self, out: Path, study_root: str, run_id: str) -> None:
        self.failed: list[dict[str, Any]] = []
        self._out, self._study_root, self._prefix = out, study_root, f"{run_id}-"
        self._steps: dict[str, dict[str, Any]] = {}
        self._studies: dict[str, Study] = {}
        self._courses: dict[str, Course] = {}
        self._said_at: dict[str, float] = {}
        self._read_bytes = 0
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2) if console.file.isatty() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            self._say(f"run started in {self._out}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self.table())
            self._live.stop()

    def update(self) -> None:
        """Read what is new and show it."""
        for event in self._new_events():
            if event["event"] == "progress":
                self._steps.setdefault(event["step"], {**event, "event": "started", "began": event["time"]})
                self._steps[event["step"]]["progress"] = event["message"]
                self._say(f"{event['step']}: {event['message']}")
                continue
            self.failed += [event] if event["event"] == "failed" else []
            self._steps[event["step"]] = self._steps.get(event["step"], {"began": event["time"]}) | event
            spent = event["time"] - self._steps[event["step"]]["began"]
            self._say(f"{event['step']}: {event['event']}" + (f" after {spent:.0f} s" if spent >= 1 else ""))
        self._read_studies()
        if self._live:
            self._live.update(self.table())

    def _say(self, text: str) -> None:
        """Print a line where there is no live table."""
        if not self._live:
            console.print(f"[{time.monotonic() - self._started:6.1f} s] {text}", markup=False, soft_wrap=True)

    def _new_events(self) -> list[dict[str, Any]]:
        path = self._out / "events.jsonl"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines()]

    def _read_studies(self) -> None:
        if "://" in self._study_root:
            return
        for spec in sorted(Path(self._study_root).glob(f"{self._prefix}*/spec.json")):
            name = spec.parent.name
            before = self._courses.get(name)
            if before and before.is_finished:
                continue
            try:
                if name not in self._studies:
                    self._studies[name] = Study.open(open_store(self._study_root), name)
                elif not self._studies[name].is_due():
                    continue
                now = self._courses[name] = look(self._studies[name])
            except FashionTuningError:
                continue  # being written; the next look sees it
            # One line a trial is enough, unless trials are long.
            quiet = time.monotonic() - self._said_at.get(name, 0.0) >= QUIET_SECONDS
            lines = tuple(changes(before, now, epochs=quiet)) if before else head(now.ledger)[1:]
            for line in lines:
                self._say(f"study {name.removeprefix(self._prefix)}: {line}")
                self._said_at[name] = time.monotonic()

    def table(self) -> Group:
        """Return every step and every study as they stand."""
        now = time.time()
        began = min((step["began"] for step in self._steps.values()), default=now)
        works = any(step["event"] == "started" for step in self._steps.values())
        ended = now if works else max((step["time"] for step in self._steps.values()), default=now)
        table = Table(title=f"fashion-tuning  {ended - began:.0f} s", title_justify="left", box=None)
        table.add_column("step", min_width=34)
        table.add_column("state")
        table.add_column("seconds", justify="right")
        for name, step in self._steps.items():
            ended = step["time"] if step["event"] != "started" else now
            state = Text.from_markup(MARKS[step["event"]])
            if step["event"] == "started" and "progress" in step:
                state.append(f", {step['progress']}")
            table.add_row(name, state, f"{ended - step['began']:.0f}")
        studies = (part for name, seen in self._courses.items() for part in self._study(name, seen))
        return Group(table, *studies)

    def _study(self, name: str, seen: Course) -> list[RenderableType]:
        ledger, best = seen.ledger, seen.ledger.best()
        facts = [f"{sum(t.is_finished for t in ledger.trials)} of {ledger.spec['trials']} trials"]
        facts += [f"best {best.score:.4f} (trial {best.number})"] if best else []
        facts.append(f"{ledger.device_seconds:.0f} of {seen.budget_seconds:.0f} device-seconds")
        facts += [time_left(seen)] if time_left(seen) and not seen.is_finished else []
        title = Text(f"study {name.removeprefix(self._prefix)}: {', '.join(facts)}", style="bold")
        return [Text(""), title, *([running_table(seen)] if seen.running else [])]
