"""Kubeflow's cron: six fields with the seconds first, or a descriptor; what it refuses, and when it fires.

Kubeflow also takes five fields, reads the first one as seconds and so turns "03:00 every day" into "every hour": here
anything but six fields is refused.

Source: robfig/cron v1.2.0, which the API server and the schedule controller pin, https://pkg.go.dev/github.com/robfig/cron
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Self

from components.errors import ParameterError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_HORIZON = timedelta(days=5 * 366)
"""The controller gives up on a schedule that does not fire within five years."""


@dataclass(frozen=True)
class Field:
    """One field: the values it fires at, and whether it was written with a star."""

    values: frozenset[int]
    star: bool

    @classmethod
    def parse(cls, text: str, name: str, low: int, high: int, names: dict[str, int]) -> Self:
        """Read a comma-separated list of values, ranges and steps; `ValueError` says what is wrong."""
        values: set[int] = set()
        star = False
        for part in text.split(","):
            span, slash, step_text = part.partition("/")
            first_text, dash, last_text = span.partition("-")
            if span in ("*", "?"):
                first, last, star = low, high, True
            else:
                first = _number(first_text, part, name, low, high, names)
                last = _number(last_text, part, name, low, high, names) if dash else (high if slash else first)
            step = int(step_text) if step_text.isascii() and step_text.isdigit() else 0 if slash else 1
            if step < 1:
                raise ValueError(f"the step of the {name} must be a whole number of at least 1; got {part!r}")
            if first > last:
                raise ValueError(f"the range of the {name} must not run backwards; got {part!r}")
            values.update(range(first, last + 1, step))
        return cls(frozenset(values), star)


def _number(text: str, part: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
    value = names.get(text.lower())
    if value is None:
        value = int(text) if text.isascii() and text.isdigit() else -1
    if not low <= value <= high:
        words = f" or {', '.join(names)}" if names else ""
        raise ValueError(f"the {name} must be {low}-{high}{words}; got {part!r}")
    return value


@dataclass(frozen=True)
class Cron:
    """A checked expression.

    Attributes:
        text: The schedule as Kubeflow takes it.
        fields: Second, minute, hour, day of month, month, day of week; empty for `@every`.
        every: Interval of `@every`, else None.
    """

    text: str
    fields: tuple[Field, ...] = ()
    every: timedelta | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check an expression.

        Args:
            text: Six fields, seconds first, or a descriptor such as `@weekly` or `@every 12h`.

        Raises:
            ParameterError: Kubeflow would refuse it, misread it or never fire.
        """
        text = " ".join(text.split())
        if text.startswith("@"):
            return cls._descriptor(text)
        parts = text.split()
        if len(parts) != 6:
            raise ParameterError(_wrong_count(text, len(parts)))
        cron = cls(text, cls._parse_fields(text, parts))
        if next(cron.firings(datetime.now(UTC), UTC), None) is None:
            raise ParameterError(f"--cron must fire within five years; got {text!r}, a day that never comes. Change it")
        return cron

    @classmethod
    def _parse_fields(cls, text: str, parts: list[str]) -> tuple[Field, ...]:
        fields, problems = [], []
        for part, bounds in zip(parts, _FIELDS, strict=True):
            try:
                fields.append(Field.parse(part, *bounds))
            except ValueError as error:
                problems.append(f"--cron {text!r}: {error}")
        if problems:
            raise ParameterError(problems)
        return tuple(fields)

    @classmethod
    def _descriptor(cls, text: str) -> Self:
        if text in DESCRIPTORS:
            return cls(text, cls._parse_fields(text, DESCRIPTORS[text].split()))
        if text.startswith("@every "):
            pieces = _DURATION.findall(text[7:])
            seconds = int(sum(float(number) * _SECONDS[unit] for number, unit in pieces))
            if (
                "".join(number + unit for number, unit in pieces) != text[7:]
                or not 1 <= seconds <= _HORIZON.total_seconds()
            ):
                raise ParameterError(f"--cron @every must have a duration from 1s to 5 years such as 12h; got {text!r}")
            return cls(text, every=timedelta(seconds=seconds))
        descriptors = [*DESCRIPTORS, "@every"]
        near = difflib.get_close_matches(text, descriptors, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Correct it"
        raise ParameterError(f"--cron descriptor must be one of {', '.join(descriptors)}; got {text!r}. {hint}")

    def firings(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Yield the times it fires at, in the zone, as the controller computes them.

        Args:
            after: Aware time; firings are later than it.
            zone: Where the fields are read: the cluster's CRON_SCHEDULE_TIMEZONE.
        """
        now = after.astimezone(UTC).replace(microsecond=0)
        while True:
            firing = now + self.every if self.every else self._next(now, zone)
            if firing is None:
                return
            yield firing.astimezone(zone)
            now = firing

    def next_times(self, after: datetime, zone: tzinfo, count: int = 3) -> list[datetime]:
        """Return the first firings after a time."""
        return list(islice(self.firings(after, zone), count))

    def _next(self, after: datetime, zone: tzinfo) -> datetime | None:
        # Steps through UTC and reads the local clock, so that an hour skipped in spring or repeated in autumn is
        # skipped or repeated here as in the controller.
        second, minute, hour, _, month, _ = self.fields
        now = after + timedelta(seconds=1)
        while now - after < _HORIZON:
            local = now.astimezone(zone)
            if local.month not in month.values:
                year, next_month = divmod(local.year * 12 + local.month, 12)
                now = datetime(year, next_month + 1, 1, tzinfo=zone).astimezone(UTC)
            elif not self._matches_day(local):
                midnight = datetime(local.year, local.month, local.day, tzinfo=zone) + timedelta(days=1)
                now = max(midnight.astimezone(UTC), now + timedelta(seconds=1))
            elif local.hour not in hour.values:
                now += timedelta(seconds=3600 - local.minute * 60 - local.second)
            elif local.minute not in minute.values:
                now += timedelta(seconds=60 - local.second)
            elif local.second not in second.values:
                now += timedelta(seconds=1)
            else:
                return now
        return None

    def _matches_day(self, local: datetime) -> bool:
        day, week = self.fields[3], self.fields[5]
        matches = (local.day in day.values, (local.weekday() + 1) % 7 in week.values)
        return all(matches) if day.star or week.star else any(matches)


def _wrong_count(text: str, count: int) -> str:
    problem = f"--cron must be six fields, seconds first, or a descriptor; got {count} fields in {text!r}."
    if count != 5:
        return f"{problem} Write for example '0 0 3 * * 1' for 03:00 on Mondays"
    try:
        misread = Cron(text, Cron._parse_fields(text, [*text.split(), "*"]))
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0)
        firings = list(islice(misread.firings(midnight, UTC), 25))
        per_day = sum(time - midnight <= timedelta(days=1) for time in firings)
        reading = f" and fire {per_day if per_day < 25 else 'more than 24'} times a day" if per_day else ""
    except ParameterError:
        reading = ""
    return f"{problem} Kubeflow would take the first one as seconds{reading}. Put the seconds first: '0 {text}'"
