"""The plan step finds everything that is certain to go wrong, before a GPU is asked for."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.approaches import APPROACHES
from components.data.sources.presence import check_source
from components.data.sources.version import source_version
from components.dataset_name import parse_dataset
from components.errors import FashionTuningError, ParameterError, using
from components.parameters import RunParameters
from components.stores import check_store, open_store

RUN_ID_VARIABLE = "FASHION_TUNING_RUN_ID"
"""Set by a local run: there the study belongs to the output folder, so that starting it again goes on."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The values that the plan hands to the later steps.

    Attributes:
        datasets: One struct each: `name`, `source` (empty for the publisher's), `version` (changes when the data does).
        workers: Names of the workers of each study.
        data: `DataSettings` as a struct.
        search: `SearchSettings` as a struct.
        train: `TrainSettings` as a struct.
        promotion: `PromotionSettings` as a struct.
        run: `id`, `study_root` and `study_prefix`.
        parameters: All of them, checked, sources without the queries of their URLs.
    """

    datasets: list[dict[str, str]]
    workers: list[str]
    data: dict[str, Any]
    search: dict[str, Any]
    train: dict[str, Any]
    promotion: dict[str, Any]
    run: dict[str, Any]
    parameters: dict[str, Any]


def make_plan(run_id: str, parameters: dict[str, Any], overview_path: str) -> Plan:
    """Check all parameters and the access they imply, and write down what will happen.

    Args:
        run_id: Kubeflow's run UUID; part of the study names, so that a retried pod goes on and a new run starts anew.
        parameters: Every run parameter, as the form gave it.
        overview_path: File to write a Markdown overview to.

    Raises:
        ParameterError: Lists every wrong parameter.
        FashionTuningError: The study root or a source cannot be used.
    """
    overview = Path(overview_path)
    try:
        checked = RunParameters.from_dict(parameters)
        plan = _checked_plan(run_id, checked)
    except FashionTuningError as error:
        problems = error.problems if isinstance(error, ParameterError) else [str(error)]
        with using(overview):
            overview.write_text("# This run cannot start\n\n" + "".join(f"- {p}\n" for p in problems), encoding="utf-8")
        raise
    with using(overview):
        overview.write_text(_describe(plan, checked), encoding="utf-8")
    return plan


def _checked_plan(run_id: str, checked: RunParameters) -> Plan:
    run_id = os.environ.get(RUN_ID_VARIABLE) or run_id
    values = checked.to_dict()
    study_root = values["study_root"]
    check_store(open_store(study_root))
    datasets = []
    for entry in values["data_datasets"]:
        name, source = parse_dataset(entry)
        check_source(name, source)
        datasets.append({"name": name, "source": source, "version": source_version(name, source) or run_id})
    prefix = re.sub(r"[^a-z0-9-]+", "-", run_id.lower()).strip("-") or "run"
    return Plan(
        datasets=datasets,
        workers=[f"worker-{n}" for n in range(values["search_workers"])],
        data=checked.data.to_dict(),
        search=checked.search.to_dict(),
        train=checked.train.to_dict(),
        promotion=checked.promotion.to_dict(),
        run={"id": run_id, "study_root": study_root, "study_prefix": prefix},
        parameters=checked.to_shown(),
    )


def _describe(plan: Plan, checked: RunParameters) -> str:
    search = checked.search
    lines = [
        "# Plan",
        "",
        f"- Datasets: {', '.join(d['name'] for d in plan.datasets)}",
        f"- Each study: {search.trials} trials of up to {search.epochs} epochs, at most {search.minutes:g} device-minutes,"
        f" {search.workers} workers, {'with' if search.pruning else 'without'} pruning, {search.space} space",
        f"- Device budget of all searches: at most {len(APPROACHES) * len(plan.datasets) * search.minutes:g} device-minutes,"
        " plus an epoch of each trial that is running when those of its study are gone",
        f"- Final training: {checked.train.replicates} seeds of each winner, and its default configuration once",
        f"- Studies: `{plan.run['study_root']}/{plan.run['study_prefix']}-<dataset>-<approach>`;"
        " `fashion-tuning study watch` shows one while it works",
        "",
        "| parameter | value |",
        "|---|---|",
        *(f"| {name} | `{value}` |" for name, value in plan.parameters.items()),
    ]
    return "\n".join(lines) + "\n"
