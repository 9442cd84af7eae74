"""The Kubeflow steps: one thin wrapper each around a plain function of `components`.

Kubeflow reads each signature, and hands the container only the function's name: the image has this file. What a step is
given is kept small, because Kubeflow stores it several times for every pod. Annotations must be real objects, so: no
`from __future__ import annotations`, no `X | None`, no project types. The one file of `components` that imports kfp.
"""

import json
from pathlib import Path
from typing import List, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

EXECUTOR = "kfp.dsl.executor_main"
"""kfp.local starts only commands in which its executor is named."""


def _component(function):
    if not hasattr(dsl, "component"):  # inside a step's container, see components/__main__.py
        return function
    # The image is set per task when the graph is built; kfp is part of every image, so nothing is installed at run time.
    component = dsl.component(function, base_image="python:3.12", install_kfp_package=False)
    # Kubeflow takes components for one whose containers are equal: the function's name keeps them apart.
    container = component.component_spec.implementation.container
    container.command, container.args = ["python3", "-m", "components"], [function.__name__, "{{$}}", EXECUTOR]
    return component


def execute(step: str, executor_input: str, _executor: str = EXECUTOR) -> None:
    """Run a step inside its container.

    Args:
        step: Name of one of the functions below.
        executor_input: What Kubeflow gives it, as JSON.
    """
    from kfp.dsl.executor import Executor

    Executor(executor_input=json.loads(executor_input), function_to_execute=globals()[step]).execute()


@_component
def plan(
    run_id: str,
    data_datasets: List[str],
    data_validation_fraction: float,
    data_test_fraction: float,
    data_min_class_count: int,
    data_limit: int,
    search_trials: int,
    search_minutes: float,
    search_workers: int,
    search_epochs: int,
    search_pruning: bool,
    search_warm_start: bool,
    search_mlp_algorithm: str,
    search_resnet18_algorithm: str,
    search_space: str,
    study_root: str,
    train_replicates: int,
    train_weights: str,
    seed: int,
    promote_champion: bool,
    promote_min_gain: float,
    overview: Output[Markdown],
) -> NamedTuple(  # type: ignore[valid-type]
    "Plan",
    datasets=List[dict],
    workers=List[str],
    data=dict,
    search=dict,
    train=dict,
    promotion=dict,
    run=dict,
    parameters=dict,
):
    """Validate every parameter, check access, fix study names, list datasets and workers."""
    parameters = {k: v for k, v in locals().items() if k not in ("run_id", "overview")}
    from components.plan import make_plan
    from components.runtime import step

    with step("plan"):
        made = make_plan(run_id, parameters, overview.path)
    return (made.datasets, made.workers, made.data, made.search, made.train, made.promotion, made.run, made.parameters)


@_component
def ingest(
    dataset: dict,
    data: dict,
    study_root: str,
    train_data: Output[Dataset],
    test_data: Output[Dataset],
    ingest_report: Output[Artifact],
    overview: Output[Markdown],
):
    """Open the source, verify, read, quarantine, group duplicates and split."""
    from components.data.step import ingest_step
    from components.models.mlp.size import check_data
    from components.runtime import step

    with step(f"ingest {dataset['name']}"):
        outputs = (train_data.path, test_data.path, ingest_report.path, overview.path)
        described = ingest_step(dataset, data, study_root, *outputs)
        check_data(train_data.path)
    train_data.metadata["dataset"] = test_data.metadata["dataset"] = described["dataset"]
    ingest_report.metadata.update(described)


@_component
def search_mlp(
    train_data: Input[Dataset], run: dict, search: dict, worker: str, overview: Output[Markdown]
) -> NamedTuple("Searched", trials=int):  # type: ignore[valid-type]
    """Work on the Keras Tuner study of the MLP until it is finished."""
    from components.runtime import step

    with step(f"search-mlp {worker}", train_data):
        from components.models.mlp import training as mlp
        from components.search.step import search_step

        trials = search_step(mlp, train_data.path, run, search, worker, overview.path)
    return (trials,)


@_component
def search_resnet18(
    train_data: Input[Dataset], run: dict, search: dict, worker: str, overview: Output[Markdown]
) -> NamedTuple("Searched", trials=int):  # type: ignore[valid-type]
    """Work on the scikit-optimize study of ResNet18 until it is finished."""
    from components.runtime import step

    with step(f"search-resnet18 {worker}", train_data):
        from components.models.resnet18 import training as resnet18
        from components.search.step import search_step

        trials = search_step(resnet18, train_data.path, run, search, worker, overview.path)
    return (trials,)


@_component
def train_mlp(
    train_data: Input[Dataset],
    run: dict,
    train: dict,
    searched: List[int],  # noqa: ARG001 - the training waits for every worker's
    model: Output[Model],
    metrics: Output[Metrics],
):
    """Re-train the study's best MLP with several seeds and export it as ONNX."""
    from components.runtime import save_metadata, step

    with step("train-mlp", train_data):
        from components.models.mlp import training as mlp
        from components.training_step import train_step

        described = train_step(mlp, train_data.path, run, train, model.path)
    model.metadata.update(described)
    metrics.metadata.update(described)
    save_metadata(metrics)


@_component
def train_resnet18(
    train_data: Input[Dataset],
    run: dict,
    train: dict,
    searched: List[int],  # noqa: ARG001 - the training waits for every worker's
    model: Output[Model],
    metrics: Output[Metrics],
):
    """Re-train the study's best ResNet18 with several seeds and export it as ONNX."""
    from components.runtime import save_metadata, step

    with step("train-resnet18", train_data):
        from components.models.resnet18 import training as resnet18
        from components.training_step import train_step

        described = train_step(resnet18, train_data.path, run, train, model.path)
    model.metadata.update(described)
    metrics.metadata.update(described)
    save_metadata(metrics)


@_component
def evaluate(
    model: Input[Model],
    test_data: Input[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
):
    """Run the exported ONNX on the held-out images, nothing else."""
    from components.evaluation.evaluate import evaluate as score
    from components.evaluation.ui_metrics import ui_metrics
    from components.runtime import save_metadata, step

    with step(f"evaluate {model.metadata.get('approach', '')}", test_data):
        logged = ui_metrics(score(Path(model.path), Path(test_data.path), Path(evaluation.path)))
    evaluation.metadata.update(logged.metrics)
    metrics.metadata.update(logged.metrics)
    classification.log_confusion_matrix(logged.classes, logged.confusion_matrix)
    classification.log_roc_curve(logged.false_positive_rates, logged.true_positive_rates, logged.thresholds)
    save_metadata(metrics, classification)


@_component
def report(
    run: dict,
    parameters: dict,
    evaluations_mlp: Input[List[Artifact]],
    evaluations_resnet18: Input[List[Artifact]],
    ingest_reports: Input[List[Artifact]],
    test_data: Input[List[Dataset]],
    html: Output[HTML],
    summary: Output[Artifact],
    overview: Output[Markdown],
    metrics: Output[Metrics],
):
    """Compare the approaches per dataset: one HTML page, one summary."""
    from components.evaluation.step import paths, report_step
    from components.runtime import save_metadata, step

    with step("report"):
        evaluations = paths(evaluations_mlp, evaluations_resnet18)
        inputs = (evaluations, paths(ingest_reports), paths(test_data))
        logged = report_step(run, parameters, *inputs, html.path, summary.path, overview.path)
    metrics.metadata.update(logged)
    save_metadata(metrics)


@_component
def promote(
    run: dict,
    promotion: dict,
    report_summary: Input[Artifact],
    models_mlp: Input[List[Model]],
    models_resnet18: Input[List[Model]],
    evaluations_mlp: Input[List[Artifact]],
    evaluations_resnet18: Input[List[Artifact]],
    test_data: Input[List[Dataset]],
    summary: Output[Artifact],
    overview: Output[Markdown],
):
    """Let the model that is best on validation challenge the champion, on images that neither has seen."""
    from components.evaluation.step import paths, promote_step
    from components.runtime import step

    with step("promote"):
        models, evaluations = paths(models_mlp, models_resnet18), paths(evaluations_mlp, evaluations_resnet18)
        promote_step(
            run, promotion, report_summary.path, models, evaluations, paths(test_data), summary.path, overview.path
        )


@_component
def notify(run_id: str, study_root: str, settings: dict):
    """Tell a webhook how the run ended; in the graph only where the cluster profile says so."""
    from components.notification.step import notify_step
    from components.runtime import step

    with step("notify"):
        notify_step(run_id, study_root, settings)
