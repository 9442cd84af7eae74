"""Run parameters are coerced and checked here; one error lists every problem.

Names, order and defaults are declared once, in the pipeline's signature (`pipelines/fashion_tuning.py`), whose docstring
says what each means; its rule is one field of the settings below. Kubeflow's form sends strings, its back end whole
floats as integers, and the local runner integers as floats: all are accepted here.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from components.approaches import APPROACHES, SPACES
from components.buckets import BUCKET_STORES, example_uris, split_store, without_user
from components.dataset_name import parse_dataset
from components.errors import ParameterError

MLP_ALGORITHMS = APPROACHES["mlp"].algorithms
RESNET18_ALGORITHMS = APPROACHES["resnet18"].algorithms


def _number(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def coerce(value: Any) -> int:
        try:
            number = _number(value)
            if not number.is_integer() or not low <= number <= high:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"must be a whole number from {low} to {high}") from None
        return int(number)

    return coerce


def _real(low: float, high: float, *, low_open: bool = False) -> Callable[[Any], float]:
    def coerce(value: Any) -> float:
        try:
            number = _number(value)
            if not low <= number <= high or (low_open and number == low):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            rule = f"above {low:g} and at most {high:g}" if low_open else f"from {low:g} to {high:g}"
            raise ValueError(f"must be a number {rule}") from None
        return number

    return coerce


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    raise ValueError("must be true or false")


class _Choice:
    """A closed set of values; the compiled pipeline shows it as a drop-down."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def __call__(self, value: Any) -> str:
        if value not in self.allowed:
            raise ValueError(f"must be one of {', '.join(self.allowed)}")
        return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or any(not c.isprintable() for c in value) or len(value) > 1000:
        raise ValueError("must be text of at most 1,000 printable characters")
    return value.strip()


def _weights(value: Any) -> str:
    text = _text(value)
    if "://" in text and text.partition("://")[0] not in ("file", *BUCKET_STORES):
        raise ValueError(f"must be a path, {example_uris('bucket/file')}, or empty")
    return text


def _store(value: Any) -> str:
    text = _text(value)
    split_store(text)
    return text


def _datasets(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('must be a list such as ["fashion-mnist"]') from None
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError('must be a list of at least one dataset, such as ["fashion-mnist"]')
    problems, names = [], []
    for entry in value:
        try:
            names.append(parse_dataset(entry)[0])
        except ParameterError as error:
            problems += error.problems
    problems += [f"names {name} more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise ValueError(": ".join(("is not usable", ", ".join(problems))))
    return tuple(value)


def _parameter(rule: Callable[[Any], Any], **default: Any) -> Any:
    """Return a field that one run parameter fills: the class's prefix and the field's name."""
    return dataclasses.field(metadata={"rule": rule}, **default)


def _also(parameter: str, **default: Any) -> Any:
    """Return a field that takes the value of a run parameter declared elsewhere."""
    return dataclasses.field(metadata={"parameter": parameter}, **default)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """A typed part of the run parameters that travels between steps as a struct."""

    PREFIX: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from a struct whose whole numbers may have become floats."""
        casts = {"int": int, "float": float, "bool": bool, "str": str}
        return cls(
            **{f.name: casts[getattr(f.type, "__name__", str(f.type))](values[f.name]) for f in dataclasses.fields(cls)}
        )

    @classmethod
    def rules(cls) -> dict[str, Callable[[Any], Any]]:
        """Return the rule of each run parameter that is declared here."""
        return {cls.PREFIX + f.name: f.metadata["rule"] for f in dataclasses.fields(cls) if "rule" in f.metadata}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take this part out of the checked run parameters."""
        return cls(**{field: values[parameter] for field, parameter in cls._parameters().items()})

    @classmethod
    def of_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Coerce and check what a command's own options gave, one for each field.

        Args:
            flags: Values by field; the option of `min_class_count` is `--min-class-count`.

        Raises:
            ParameterError: Lists every problem, one entry each.
        """
        problems: list[str] = []
        named = cls._parameters()
        values = {
            field: _checked(_RULES[named[field]], value, "--" + field.replace("_", "-"), problems)
            for field, value in flags.items()
        }
        if problems:
            raise ParameterError(problems)
        return cls(**values)

    @classmethod
    def _parameters(cls) -> dict[str, str]:
        """Return the run parameter of each field."""
        return {f.name: f.metadata.get("parameter", cls.PREFIX + f.name) for f in dataclasses.fields(cls)}


@dataclass(frozen=True, kw_only=True)
class PlanSettings(_Settings):
    """The parameters that only the plan needs, and the seed of everything."""

    data_datasets: tuple = _parameter(_datasets)
    study_root: str = _parameter(_store)
    seed: int = _parameter(_integer(0, 2**31 - 1))


@dataclass(frozen=True, kw_only=True)
class DataSettings(_Settings):
    """The parameters of ingest."""

    PREFIX = "data_"
    validation_fraction: float = _parameter(_real(0.01, 0.5), default=0.1)
    test_fraction: float = _parameter(_real(0.01, 0.5), default=0.15)
    min_class_count: int = _parameter(_integer(1, 1_000_000), default=1)
    limit: int = _parameter(_integer(0, 100_000_000), default=0)
    seed: int = _also("seed", default=0)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(_Settings):
    """What a search worker needs; the budget is for one study, so both approaches get the same.

    `weights` are the final training's: trials start from what the winner starts from.
    """

    PREFIX = "search_"
    trials: int = _parameter(_integer(1, 10_000))
    minutes: float = _parameter(_real(0, 100_000, low_open=True))
    workers: int = _parameter(_integer(1, 64))
    epochs: int = _parameter(_integer(1, 1_000))
    pruning: bool = _parameter(_boolean)
    warm_start: bool = _parameter(_boolean)
    mlp_algorithm: str = _parameter(_Choice(*MLP_ALGORITHMS))
    resnet18_algorithm: str = _parameter(_Choice(*RESNET18_ALGORITHMS))
    space: str = _parameter(_Choice(*SPACES))
    seed: int = _also("seed")
    weights: str = _also("train_weights", default="")

    def algorithm(self, approach: str) -> str:
        """Return an approach's search algorithm: as chosen, or its only one."""
        return getattr(self, f"{approach}_algorithm", APPROACHES[approach].algorithms[0])


@dataclass(frozen=True, kw_only=True)
class TrainSettings(_Settings):
    """What the final training needs; `seed` is what the replicates' seeds are made of."""

    PREFIX = "train_"
    replicates: int = _parameter(_integer(1, 20))
    weights: str = _parameter(_weights)
    epochs: int = _also("search_epochs")
    seed: int = _also("seed")


@dataclass(frozen=True, kw_only=True)
class PromotionSettings(_Settings):
    """The parameters of the champion's gate."""

    PREFIX = "promote_"
    champion: bool = _parameter(_boolean)
    min_gain: float = _parameter(_real(0, 1))


_SETTINGS = (PlanSettings, DataSettings, SearchSettings, TrainSettings, PromotionSettings)
_RULES = dict(sorted(rule for settings in _SETTINGS for rule in settings.rules().items()))
CHOICES: dict[str, tuple[str, ...]] = {n: rule.allowed for n, rule in _RULES.items() if isinstance(rule, _Choice)}
"""Run parameters with a closed set of values."""


@dataclass(frozen=True)
class RunParameters:
    """All parameters of a run, coerced and within bounds."""

    values: dict[str, Any]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Coerce and check every parameter.

        Args:
            values: A value for each parameter of the pipeline's signature, as the form, a file or a flag gave it.

        Raises:
            ParameterError: Lists every problem, one entry each.
        """
        problems = [
            f"{name} is not a parameter; known are {', '.join(_RULES)}" for name in values if name not in _RULES
        ]
        coerced = {}
        for name, rule in _RULES.items():
            if name in values:
                coerced[name] = _checked(rule, values[name], name, problems)
            else:
                problems.append(f"{name} must be given")
        if not problems and coerced["search_workers"] > coerced["search_trials"]:
            problems.append(
                f"search_workers must be at most search_trials ({coerced['search_trials']}); got"
                f" {coerced['search_workers']}"
            )
        if problems:
            raise ParameterError(problems)
        return cls(coerced)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.values.items()}

    def to_shown(self) -> dict[str, Any]:
        """Return the values as JSON types without what a source's URL may keep secret: what may be printed and kept."""
        return shown_parameters(self.to_dict())

    @property
    def data(self) -> DataSettings:
        """The part that ingest needs."""
        return DataSettings.of(self.values)

    @property
    def search(self) -> SearchSettings:
        """The part that search workers need."""
        return SearchSettings.of(self.values)

    @property
    def train(self) -> TrainSettings:
        """The part that the final training needs."""
        return TrainSettings.of(self.values)

    @property
    def promotion(self) -> PromotionSettings:
        """The part that the champion's gate needs."""
        return PromotionSettings.of(self.values)


def shown_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return run parameters with every source redacted.

    A presigned URL's query is a secret: it reaches the step that fetches, and no file, report or message.
    """
    from components.dataset_name import redacted_dataset

    return {**parameters, "data_datasets": [redacted_dataset(entry) for entry in parameters["data_datasets"]]}


def without_queries(value: Any) -> Any:
    """Return a value of a parameter, whatever its form, with the query of every URL in it struck out."""
    if isinstance(value, (list, tuple)):
        return [without_queries(entry) for entry in value]
    return re.sub(r"\?[^\s\"',]*", "?***", value) if isinstance(value, str) and "://" in value else value


def _checked(rule: Callable[[Any], Any], value: Any, name: str, problems: list[str]) -> Any:
    """Return a value as its rule coerces it; where it breaks the rule, add that to the problems."""
    try:
        return rule(value)
    except ValueError as error:
        problems.append(f"{name} {error}; got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        value = without_queries(value)
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except RecursionError:
        return "lists within lists without end"
    text = without_user(text)
    return repr(text if len(text) <= 60 else text[:57] + "...") if isinstance(value, str) else text[:60]
