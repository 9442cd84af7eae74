"""A run's results without its artifacts, in `runs/<run id>/` below the study root, and the table of all of them.

Kubeflow's artifact paths cannot be guessed from outside; `submit --wait`, `runs` and CI read the verdict here.
"""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import yaml

from components.errors import DataError, StorageError
from components.evaluation.report.history import FOLDER
from components.search.shapes import misfit
from components.stores import ObjectNotFoundError, Store, open_store

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

SUMMARY, REPORT, PARAMETERS = "summary.json", "report.html", "parameters.yaml"
COLUMNS = (
    "run",
    "created",
    "dataset",
    "winner",
    "verdict",
    "decision",
    "champion_version",
    "device_seconds",
    "cost",
    "currency",
)
"""Columns of the table before the scores of each approach, `<approach> accuracy` and `<approach> macro_f1`."""
_READERS = 8


class _Scores(TypedDict):
    accuracy: float
    accuracy_ci95: list[float]
    macro_f1: float
    device_seconds: dict[str, float]
    best_hyperparameters: dict[str, Any]


class _Data(TypedDict):
    hash: str


class _Comparison(TypedDict):
    winner: str | None
    verdict: str


class _Champion(TypedDict):
    decision: str | None
    version: float | None


class _Dataset(TypedDict):
    data: _Data
    approaches: dict[str, _Scores]
    comparison: _Comparison
    champion: _Champion


class _Cost(TypedDict):
    price_per_hour: float
    currency: str


class Summary(TypedDict):
    """What is read of `summary.json`; one without it is passed over."""

    parameters: dict[str, Any]
    datasets: dict[str, _Dataset]
    cost: NotRequired[_Cost | None]


def result_key(run_id: str, name: str) -> str:
    """Return the key of a run's result below its study root."""
    return f"runs/{run_id}/{name}"


def keep_parameters(run: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Keep the file that repeats a run with `--parameters`; sources are without the queries of their URLs.

    Args:
        run: The run's `id` and `study_root`.
        parameters: All run parameters, as the plan shows them.
    """
    open_store(run["study_root"]).create(result_key(run["id"], PARAMETERS), _repeating(parameters))


def _repeating(parameters: dict[str, Any]) -> bytes:
    return yaml.safe_dump(parameters, sort_keys=True, allow_unicode=True).encode()


def keep_result(run: dict[str, Any], name: str, path: Path) -> None:
    """Copy a result next to the studies; a copy that is there already stays, so that a retried step changes nothing.

    Args:
        run: `id` and `study_root` as the plan fixed them.
        name: `SUMMARY` or `REPORT`.
        path: File to copy.
    """
    open_store(run["study_root"]).create(result_key(run["id"], name), path.read_bytes())


def replace_results(run: dict[str, Any], summary: Path, report: Path) -> None:
    """Keep a run's results in place of earlier ones: a local run goes on in its folder under the same id, also with other parameters.

    Args:
        run: `id` and `study_root`.
        summary: `summary.json` of the run.
        report: Its report.
    """
    root, new = open_store(run["study_root"]), summary.read_bytes()
    with suppress(ObjectNotFoundError):
        if root.read(result_key(run["id"], SUMMARY)) == new:
            return
    root.write(result_key(run["id"], PARAMETERS), _repeating(json.loads(new)["parameters"]))
    root.write(result_key(run["id"], REPORT), report.read_bytes())
    root.write(result_key(run["id"], SUMMARY), new)


def read_summaries(study_root: str) -> dict[str, dict[str, Any]]:
    """Return `summary.json` of every run that ended well, by run id, oldest first; each has `created`, "" where it is unknown.

    Args:
        study_root: Store or directory.

    Raises:
        FashionTuningError: The store cannot be read.
    """
    root = open_store(study_root)
    keys = [key for key in root.list("runs/") if key.endswith(f"/{SUMMARY}")]
    with ThreadPoolExecutor(_READERS) as pool:
        summaries = dict(
            zip((key.split("/")[1] for key in keys), pool.map(lambda key: _read(root, key, Summary), keys), strict=True)
        )
        times = {
            row["run"]: row["created"]
            for row in pool.map(lambda key: _read(root, key), root.list(f"{FOLDER}/"))
            if row and isinstance(row.get("run"), str) and isinstance(row.get("created"), str)
        }
    dated = {
        run: summary | {"created": times.get(run, "")} for run, summary in summaries.items() if summary is not None
    }
    return dict(sorted(dated.items(), key=lambda item: (item[1]["created"], item[0])))


def runs_frame(summaries: dict[str, dict[str, Any]]) -> "pandas.DataFrame":
    """Return one row per run and data set.

    Args:
        summaries: What `read_summaries` returned.
    """
    import pandas

    rows = []
    for run, summary in summaries.items():
        for dataset, part in summary["datasets"].items():
            champion, approaches = part["champion"], part["approaches"]
            seconds = sum(sum(scores["device_seconds"].values()) for scores in approaches.values())
            price = summary.get("cost")
            row = {
                "run": run,
                "created": summary["created"],
                "dataset": dataset,
                "winner": part["comparison"]["winner"],
                "verdict": part["comparison"]["verdict"],
                "decision": champion["decision"],
                "champion_version": champion["version"],
                "device_seconds": round(seconds, 1),
                "cost": round(seconds / 3600 * price["price_per_hour"], 4) if price else None,
                "currency": price["currency"] if price else None,
            }
            for name, scores in approaches.items():
                row |= {f"{name} {score}": scores[score] for score in ("accuracy", "macro_f1")}
            rows.append(row)
    frame = pandas.DataFrame(rows)
    return frame.reindex(columns=[*COLUMNS, *(name for name in frame.columns if name not in COLUMNS)])


def compare(summaries: dict[str, dict[str, Any]], wanted: list[str]) -> dict[str, Any]:
    """Return what runs have in common and what not.

    Args:
        summaries: What `read_summaries` returned.
        wanted: Ids of runs, or their beginnings.

    Returns:
        `runs`: ids. `parameters`: values by run, of those that differ. `datasets`: by name and approach the scores by run, and
        whether all runs scored the same data.

    Raises:
        DataError: An id fits no run, or several.
    """
    runs = [_one(summaries, name) for name in wanted]
    chosen = {run: summaries[run] for run in runs}
    names = sorted({name for summary in chosen.values() for name in summary["parameters"]})
    parameters = {name: {run: summary["parameters"].get(name) for run, summary in chosen.items()} for name in names}
    datasets = {}
    for dataset in sorted({name for summary in chosen.values() for name in summary["datasets"]}):
        parts = {run: summary["datasets"][dataset] for run, summary in chosen.items() if dataset in summary["datasets"]}
        approaches = sorted({approach for part in parts.values() for approach in part["approaches"]})
        datasets[dataset] = {
            "same_data": len({part["data"]["hash"] for part in parts.values()}) == 1,
            "approaches": {
                approach: {
                    run: part["approaches"][approach] for run, part in parts.items() if approach in part["approaches"]
                }
                for approach in approaches
            },
        }
    # Summaries of before may hold 4.0 where others hold 4: equal for Python, not as JSON.
    differing = {name: v for name, v in parameters.items() if any(value != v[runs[0]] for value in v.values())}
    return {"runs": runs, "parameters": differing, "datasets": datasets}


def _one(summaries: dict[str, dict[str, Any]], name: str) -> str:
    fitting = [run for run in summaries if run.startswith(name)]
    if name in fitting or len(fitting) == 1:
        return name if name in fitting else fitting[0]
    known = ", ".join(list(summaries)[-20:]) or "none"
    raise DataError(f"run {name!r} must name one run under the study root; {len(fitting)} fit. There are: {known}")


def _read(root: Store, key: str, kind: Any = dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(root.read(key))
        if problem := misfit(content, kind):
            raise ValueError(f"wrong form: {problem}")
        return content
    except (ValueError, StorageError) as error:
        log.warning("%s is skipped: %s", key, error)
        return None
