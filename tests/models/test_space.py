import dataclasses
import json

import numpy as np
import pytest

from components.models.space import Parameter, Space

UNITS = Parameter(name="units", low=64, high=1024, step=64, default=256)
RATE = Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3)
OPTIMIZER = Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam")
MOMENTUM = Parameter(name="momentum", low=0.1, high=0.9, default=0.9)
NESTEROV = Parameter(name="nesterov", choices=(True, False), default=True)
SPACE = Space((UNITS, RATE, OPTIMIZER, MOMENTUM, NESTEROV))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"low": 2, "high": 1, "default": 1}, "low must be below high"),
        ({"low": 0.0, "high": 1.0, "log": True, "default": 0.5}, "low must be positive"),
        ({"low": 0.0, "high": 1.0, "default": 2.0}, "default must lie between"),
        ({"low": 1, "high": 9, "step": 4, "default": 3}, "must lie on the grid"),
        ({"low": 0.0, "high": 1.0, "step": 1, "default": 0.5}, "belong to an integer"),
        ({"low": 1, "high": 9, "step": 0, "default": 1}, "step must be 1 or more"),
        ({"choices": ("a", "b"), "default": "c"}, "hold the default"),
        ({"choices": ("a", "a"), "default": "a"}, "distinct"),
    ],
)
def test_wrong_declarations_are_refused(values, text):
    """A parameter that cannot be searched is refused when it is declared, by name."""
    with pytest.raises(ValueError, match=rf"^p: .*{text}"):
        Parameter(name="p", **values)


def test_names_are_unique():
    """A name that is declared twice is refused."""
    with pytest.raises(ValueError, match="units must be declared once"):
        Space((UNITS, UNITS))


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (UNITS, 64, True),
        (UNITS, 128.0, True),
        (UNITS, 65, False),
        (UNITS, 1088, False),
        (UNITS, "64", False),
        (UNITS, True, False),
        (RATE, 1e-4, True),
        (RATE, float("nan"), False),
        (RATE, 0.2, False),
        (OPTIMIZER, "SGD", True),
        (OPTIMIZER, "LBFGS", False),
    ],
)
def test_contains(parameter, value, expected):
    """A value belongs to a parameter only within its bounds, on its grid and of its kind."""
    assert expected == parameter.contains(value)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (UNITS, np.int64(100), 128),
        (UNITS, 95.9, 64),
        (UNITS, -5, 64),
        (UNITS, 4000, 1024),
        (RATE, np.float32(0.00123456789), 0.00123457),
        (RATE, 7.0, 0.1),
        (OPTIMIZER, np.str_("SGD"), "SGD"),
        (Parameter(name="p", low=1, high=10, step=4, default=1), 10, 9),
    ],
)
def test_conform_gives_the_nearest_allowed_plain_value(parameter, value, expected):
    """Whatever a library suggests becomes an allowed value of Python's own types."""
    found = parameter.conform(value)

    assert (expected, type(expected)) == (found, type(found))
    assert parameter.contains(found)


def test_conform_refuses_an_unknown_choice():
    """There is no nearest choice."""
    with pytest.raises(ValueError, match="LBFGS"):
        OPTIMIZER.conform("LBFGS")


def test_problems_names_each_wrong_value():
    """Missing, unknown and out-of-range values are all listed."""
    found = SPACE.problems({"units": 65, "optimizer": "Adam", "momentum": 0.5, "nesterov": True, "depth": 3})

    assert [
        "depth is not in the space",
        "rate is missing",
        "units must lie in (64, 1024); got 65",
    ] == found
    assert [] == SPACE.problems(SPACE.defaults)


def test_samples_are_allowed_and_cover_every_scale():
    """Random settings are valid, reach both ends of a grid, and spread evenly over a logarithm."""
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(2000)]

    assert [] == [p for values in drawn for p in SPACE.problems(values)]
    assert set(UNITS.grid) == {values["units"] for values in drawn}
    below = np.mean([values["rate"] < 10**-2.5 for values in drawn])
    assert abs(below - 0.5) < 0.05


def test_logarithmic_integers_reach_both_bounds():
    """The bounds of an integer on a log scale are among what is drawn."""
    batch = Parameter(name="batch", low=16, high=64, step=16, log=True, default=32)
    drawn = {batch.at(fraction) for fraction in np.linspace(0, 1, 200)}

    assert {16, 32, 48, 64} == drawn


def test_enumerate_yields_each_distinct_setting_once():
    """A space that can be counted is enumerated in a fixed order."""
    space = Space((OPTIMIZER, Parameter(name="k", low=1, high=3, default=1)))

    assert 6 == space.grid_size()
    assert [(o, k) for o in ("SGD", "Adam") for k in (1, 2, 3)] == [tuple(v.values()) for v in space.enumerate()]
    assert SPACE.grid_size() is None


def test_a_space_survives_json_and_keeps_its_hash():
    """What `spec.json` stores rebuilds an equal space; any change of it changes the hash."""
    again = Space.from_json(json.loads(json.dumps(SPACE.to_json())))

    assert (SPACE, SPACE.content_hash) == (again, again.content_hash)
    other = Space((dataclasses.replace(UNITS, high=2048), *SPACE.parameters[1:]))
    assert other.content_hash != SPACE.content_hash


def test_the_format_keeps_its_conditions_and_refuses_them():
    """Spaces of earlier versions have the same hash; one with a condition, which no version shipped, is not misread."""
    row = Space((UNITS,)).to_json()[0]

    assert row["only_if"] is None
    with pytest.raises(ValueError, match="units must have no condition"):
        Space.from_json([{**row, "only_if": ["optimizer", ["SGD"]]}])
