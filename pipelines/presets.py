"""Named sets of run parameters, and how flags change them."""

import json
from typing import Any

from components.errors import ParameterError

PRESETS: dict[str, dict[str, Any]] = {
    # The whole way in minutes on a laptop, on the generated sample where no dataset is named.
    "quickstart": {
        "search_trials": 4,
        "search_epochs": 4,
        "search_minutes": 10.0,
        "train_replicates": 2,
    },
    # The defaults of the pipeline's signature, on the published sources.
    "full": {},
}


def run_parameters(
    defaults: dict[str, Any], preset: str, settings: tuple[str, ...], datasets: tuple[str, ...]
) -> dict[str, Any]:
    """Return the parameters of a run, not yet checked.

    Args:
        defaults: Every parameter with its default.
        preset: A key of `PRESETS`.
        settings: `PARAM=VALUE` flags; a value is read as JSON where it is JSON, else as text.
        datasets: `NAME=SOURCE` flags; they replace `data_datasets`.

    Raises:
        ParameterError: A flag is not `PARAM=VALUE`, or names no parameter; lists all of them.
    """
    values = defaults | PRESETS[preset]
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            problems.append(f"--set must be PARAM=VALUE; got {setting!r}")
        elif name not in defaults:
            problems.append(f"--set {name} is not a parameter; known are {', '.join(sorted(defaults))}")
        else:
            values[name] = _value(text)
    if datasets:
        values["data_datasets"] = list(datasets)
    if problems:
        raise ParameterError(problems)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
