"""Search spaces as plain data: declared beside the model they build, read by every sampler and by the report."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Self

Value = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One hyperparameter.

    Attributes:
        name: Its name in `params.json`, `model.json` and the report.
        low: Lower bound of a number, inclusive; None for a choice.
        high: Upper bound of a number, inclusive; None for a choice.
        step: Grid of an integer; None where every value counts.
        log: True where the scale is logarithmic.
        choices: The values of a choice; empty for a number.
        default: What an inactive parameter is imputed with, and the first suggestion.
        only_if: (other parameter, its values) under which this one is active; None for always.
    """

    name: str
    low: float | int | None = None
    high: float | int | None = None
    step: int | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    default: Value
    only_if: tuple[str, tuple[Value, ...]] | None = None

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
        return self.low <= value <= self.high and (not self.is_integer or float(value).is_integer())


@dataclass(frozen=True)
class Space:
    """The parameters of one approach, in a fixed order; a parent stands before its children."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for parameter in self.parameters:
            if parameter.name in seen:
                raise ValueError(f"{parameter.name} must be declared once")
            if parameter.only_if and parameter.only_if[0] not in seen:
                raise ValueError(f"{parameter.name}: its parent {parameter.only_if[0]} must be declared before it")
            seen.add(parameter.name)

    def active(self, values: dict[str, Value]) -> dict[str, Value]:
        """Return only the values whose condition holds, in the space's order."""
        kept: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.only_if is None or kept.get(parameter.only_if[0]) in parameter.only_if[1]:
                kept[parameter.name] = values[parameter.name]
        return kept

    def imputed(self, values: dict[str, Value]) -> dict[str, Value]:
        """Return a value for every parameter: the given one, else its default."""
        return {p.name: values.get(p.name, p.default) for p in self.parameters}

    def problems(self, values: dict[str, Value]) -> list[str]:
        """Return what is wrong with a set of active values; an empty list where it fits."""
        try:
            expected = self.active(self.imputed(values))
        except KeyError as error:
            return [f"{error} is missing"]
        found = [f"{name} is not in the space" for name in values if name not in expected]
        found += [f"{name} is missing" for name in expected if name not in values]
        found += [
            f"{p.name} must lie in {p.choices or (p.low, p.high)}; got {values[p.name]!r}"
            for p in self.parameters
            if p.name in values and not p.contains(values[p.name])
        ]
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """Return the space as JSON values."""
        return [dataclasses.asdict(p) for p in self.parameters]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> Self:
        """Rebuild a space from `to_json`, tuples restored."""

        def parameter(row: dict[str, Any]) -> Parameter:
            only_if = row["only_if"]
            only_if = (only_if[0], tuple(only_if[1])) if only_if else None
            return Parameter(**{**row, "choices": tuple(row["choices"]), "only_if": only_if})

        return cls(tuple(parameter(row) for row in rows))

    @property
    def content_hash(self) -> str:
        """SHA-256 of the declaration: equal exactly where trials may be reused."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
