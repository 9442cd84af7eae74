"""Says what is wrong with values from JSON that have not the shape that a type states, before they are used."""

import dataclasses
import functools
from collections.abc import Iterable
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from components.text import escaped


def misfit(value: Any, kind: Any, name: str = "the whole") -> str:
    """Return what of a JSON value is not as its type says, such as `no scores` or `3 for scores`; empty where all fits.

    Args:
        value: What `json.loads` gave.
        kind: A `TypedDict` or a dataclass, whose further keys do not matter; a plain type, list, tuple of one type, dict by
            name, or a union of these.
        name: What the text calls the value.
    """
    if isinstance(kind, type) and (is_typeddict(kind) or dataclasses.is_dataclass(kind)):
        return _misfit_fields(value, kind, name)
    origin, parts = get_origin(kind), get_args(kind)
    inner: Iterable[tuple[Any, Any]] | None
    wrong = f"{escaped(value, 40)} for {name}"
    if origin in (Union, UnionType):
        return wrong if all(misfit(value, part) for part in parts) else ""
    if origin in (list, tuple):
        inner = enumerate(value) if isinstance(value, list) else None
        kinds = parts[0]
    elif origin is dict:
        inner = value.items() if isinstance(value, dict) else None
        kinds = parts[1]
    elif kind is Any:
        return ""
    else:
        plain = (int, float) if kind is float else kind
        return "" if isinstance(value, plain) and (kind is bool or not isinstance(value, bool)) else wrong
    if inner is None:
        return wrong
    return next((text for key, part in inner if (text := misfit(part, kinds, f"{name}.{escaped(key, 40)}"))), "")


def _misfit_fields(value: Any, kind: Any, name: str) -> str:
    if not isinstance(value, dict):
        return f"{escaped(value, 40)} for {name}"
    for key, (part, required) in _fields(kind).items():
        place = key if name == "the whole" else f"{name}.{key}"
        if key in value:
            if text := misfit(value[key], part, place):
                return text
        elif required:
            return f"no {place}"
    return ""


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return type and whether it is required of each field."""
    if is_typeddict(kind):
        required = kind.__required_keys__
    else:
        required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    return {name: (part, name in required) for name, part in get_type_hints(kind).items()}
