"""Search spaces as plain data: declared beside the model they build, read by every sampler and by the report."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

SIGNIFICANT_DIGITS = 6
"""Floats are suggested with so many digits: enough for any hyperparameter, and short in a table."""

Value = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One hyperparameter.

    Attributes:
        name: Its name in `params.json`, `model.json` and the report.
        low: Lower bound of a number, inclusive, an integer for an integer; None for a choice.
        high: Upper bound of a number, inclusive; None for a choice.
        step: Grid of an integer; None where every value counts.
        log: True where the scale is logarithmic.
        choices: The values of a choice; empty for a number.
        default: The first suggestion, and the value where none is given.
    """

    name: str
    low: Any = None
    high: Any = None
    step: int | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    default: Any

    def __post_init__(self) -> None:
        if self.choices:
            if len(set(self.choices)) != len(self.choices) or self.default not in self.choices:
                raise ValueError(f"{self.name}: choices must be distinct and hold the default; got {self.choices}")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"{self.name}: low must be below high; got {self.low} and {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"{self.name}: low must be positive on a log scale; got {self.low}")
        elif not self.low <= self.default <= self.high:
            raise ValueError(f"{self.name}: default must lie between {self.low} and {self.high}; got {self.default}")
        elif self.step is not None and (not self.is_integer or self.step < 1):
            raise ValueError(f"{self.name}: step must be 1 or more and belong to an integer; got {self.step}")
        elif not self.contains(self.default):
            raise ValueError(
                f"{self.name}: default must lie on the grid {self.low} + n x {self.step}; got {self.default}"
            )

    @property
    def is_integer(self) -> bool:
        """True for a whole number, False for a float or a choice."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contains(self, value: Any) -> bool:
        """Return whether the value may be given to this parameter."""
        if self.choices:
            return value in self.choices
        if isinstance(value, (bool, str)) or value is None or not math.isfinite(value):
            return False
        if not self.low <= value <= self.high:
            return False
        return not self.is_integer or (float(value).is_integer() and (value - self.low) % (self.step or 1) == 0)

    def conform(self, value: Any) -> Value:
        """Return the allowed value nearest to the given one, as a plain Python value.

        Args:
            value: A choice, or any finite number, numpy scalars included.

        Raises:
            ValueError: If it is not one of the choices.
        """
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"{self.name} must be one of {self.choices}; got {value!r}")
            return self.choices[self.choices.index(value)]
        value = min(max(float(value), self.low), self.high)
        if not self.is_integer:
            return float(min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high))
        step = self.step or 1
        index = math.floor((value - self.low) / step + 0.5)
        return self.low + step * min(index, (self.high - self.low) // step)

    def at(self, fraction: float) -> Value:
        """Return the value at a fraction (0 to 1) of the range, on the parameter's own scale."""
        if self.choices:
            return self.choices[min(int(fraction * len(self.choices)), len(self.choices) - 1)]
        if self.is_integer:  # half a unit beyond both ends, so that the bounds are as likely as the rest
            low, high = self.low - (0 if self.log else 0.5), self.high + 0.5
        else:
            low, high = self.low, self.high
        return self.conform(low * (high / low) ** fraction if self.log else low + (high - low) * fraction)

    def fraction(self, value: Any) -> float:
        """Return where on the range (0 to 1) a value lies, on the parameter's own scale."""
        if self.choices:
            return self.choices.index(value) / max(len(self.choices) - 1, 1)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def grid(self) -> tuple[Value, ...]:
        """All values of a choice or an integer; empty for a float."""
        if self.choices:
            return self.choices
        return tuple(range(self.low, self.high + 1, self.step or 1)) if self.is_integer else ()


@dataclass(frozen=True)
class Space:
    """The parameters of one approach, in a fixed order."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = Counter(parameter.name for parameter in self.parameters)
        for name, count in names.items():
            if count > 1:
                raise ValueError(f"{name} must be declared once")

    def imputed(self, values: dict[str, Value]) -> dict[str, Value]:
        """Return a value for every parameter, in the space's order: the given one, else its default."""
        return {p.name: values.get(p.name, p.default) for p in self.parameters}

    @property
    def defaults(self) -> dict[str, Value]:
        """The default of every parameter: the first suggestion of every sampler."""
        return self.imputed({})

    def conform(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """Return the nearest allowed values; missing ones take their default."""
        return {p.name: p.conform(values.get(p.name, p.default)) for p in self.parameters}

    def key(self, values: dict[str, Value]) -> tuple[tuple[str, Value], ...]:
        """Return what two sets of values share exactly where they mean the same training."""
        return tuple(self.imputed(values).items())

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """Return values drawn uniformly, each on its own scale."""
        fractions = rng.random(len(self.parameters))
        return {p.name: p.at(fraction) for p, fraction in zip(self.parameters, fractions, strict=True)}

    def grid_size(self) -> int | None:
        """Return the number of distinct settings; None where a float makes them endless."""
        sizes = [len(p.grid) for p in self.parameters]
        return None if 0 in sizes else math.prod(sizes)

    def enumerate(self) -> Iterator[dict[str, Value]]:
        """Yield every setting of a space without floats, in a fixed order."""
        for row in itertools.product(*(p.grid for p in self.parameters)):
            yield dict(zip((p.name for p in self.parameters), row, strict=True))

    def problems(self, values: dict[str, Value]) -> list[str]:
        """Return what is wrong with a set of values; an empty list where it fits."""
        problems = [f"{name} is not in the space" for name in values if name not in self.defaults]
        problems += [f"{name} is missing" for name in self.defaults if name not in values]
        problems += [
            f"{p.name} must lie in {p.choices or (p.low, p.high)}; got {values[p.name]!r}"
            for p in self.parameters
            if p.name in values and not p.contains(values[p.name])
        ]
        return problems

    def to_json(self) -> list[dict[str, Any]]:
        """Return the space as JSON values; `only_if` is a condition that the format allows and no space has."""
        return [{**dataclasses.asdict(p), "only_if": None} for p in self.parameters]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> Self:
        """Rebuild a space from `to_json`; raise `ValueError` for a condition."""

        def parameter(row: dict[str, Any]) -> Parameter:
            if row["only_if"] is not None:
                raise ValueError(f"{row['name']} must have no condition; got {row['only_if']}")
            return Parameter(
                **{key: value for key, value in row.items() if key != "only_if"} | {"choices": tuple(row["choices"])}
            )

        return cls(tuple(parameter(row) for row in rows))

    @property
    def content_hash(self) -> str:
        """SHA-256 of the declaration: equal exactly where trials may be reused."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
