"""The run parameters' defaults, named sets of them, and how flags change them.

Must not import kfp: a wrong flag is refused before anything slow is loaded.
"""

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import ParameterError, file_error
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


@dataclass(frozen=True)
class Asked:
    """What a command line asks of a run's parameters.

    Attributes:
        preset: A key of `PRESETS`; None for `full`.
        file: YAML file with parameters; None for none.
        datasets: `NAME=SOURCE` flags.
        settings: `PARAM=VALUE` flags.
    """

    preset: str | None = None
    file: Path | None = None
    datasets: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """True where no flag was given."""
        return self == Asked()

    @property
    def names_datasets(self) -> bool:
        """True where some data set is named, in whatever way."""
        named = any(setting.startswith("data_datasets=") for setting in self.settings)
        return bool(self.datasets) or named or "data_datasets" in self._of_file()

    @property
    def preset_name(self) -> str:
        """The preset."""
        return self.preset or "full"

    def parameters(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a run, not yet checked; flags go before the file, and the file before the preset.

        Args:
            defaults: Every parameter with its default.

        Raises:
            ParameterError: The file or a flag is wrong; lists all of a kind.
        """
        values = self._of_file()
        if unknown := sorted(set(values) - set(defaults)):
            raise ParameterError(
                f"{self.file} must hold run parameters; got {', '.join(map(repr, unknown))}. Known are {', '.join(sorted(defaults))}"
            )
        return run_parameters(defaults | PRESETS[self.preset_name] | values, "full", self.settings, self.datasets)

    def _of_file(self) -> dict[str, Any]:
        return read_parameters(self.file) if self.file else {}


def read_parameters(path: Path) -> dict[str, Any]:
    """Return what a YAML file of run parameters says.

    Raises:
        ParameterError: It cannot be read, or is not a mapping of names to values.
        PermissionDeniedError: It may not be read.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise file_error(error, "must be readable") from None
    except OSError as error:
        raise ParameterError(
            f"--parameters must be a readable file; got {path} ({error.strerror}). Correct it"
        ) from None
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        # A parser's message repeats the line, which may have a secret in a URL.
        mark = getattr(error, "problem_mark", None)
        where = f", a mistake in line {mark.line + 1}" if mark else ""
        raise ParameterError(f"--parameters must be a YAML file; got {path}{where}. Correct it") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ParameterError(f"{path} must map run parameters to values; got {type(values).__name__}. Correct it")
    return values


def write_parameters(path: Path, parameters: dict[str, Any]) -> None:
    """Write the file that repeats a run with `--parameters`; only its owner may read it."""
    import yaml

    path.touch()
    path.chmod(0o600)
    text = yaml.safe_dump(parameters, sort_keys=True, allow_unicode=True)
    path.write_text(f"# Repeats the run: --parameters {path.name}\n{text}", encoding="utf-8")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
