"""The run parameters' defaults, named sets of them, and how flags change them.

Must not import kfp: a wrong flag is refused before anything slow is loaded.
"""

import ast
import json
from pathlib import Path
from typing import Any

from components.errors import ParameterError
from components.parameters import without_queries

PRESETS: dict[str, dict[str, Any]] = {
    # The whole way in minutes on a laptop, on the generated sample where no dataset is named.
    "quickstart": {
        "search_trials": 4,
        "search_epochs": 3,
        "search_minutes": 10.0,
        # Two datasets at a time keep two cores busy; more workers would only load more frameworks.
        "search_workers": 1,
        "train_replicates": 2,
    },
    # The defaults of the pipeline's signature, on the published sources.
    "full": {},
}


def default_parameters(study_root: str) -> dict[str, Any]:
    """Return every run parameter with its default, read from the pipeline's signature, their only declaration.

    Args:
        study_root: The cluster profile's, the one default that is not a literal.
    """
    tree = ast.parse(Path(__file__).with_name("fashion_tuning.py").read_text(encoding="utf-8"))
    signature = next(n.args for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "fashion_tuning")
    given = {a.arg: d for a, d in zip(signature.args, signature.defaults, strict=True)}
    return {n: ast.literal_eval(d) for n, d in given.items() if n != "study_root"} | {"study_root": study_root}


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
            problems.append(f"--set must be PARAM=VALUE; got {without_queries(setting)!r}")
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
