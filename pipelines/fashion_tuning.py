"""The pipeline: is a tuned MLP enough, or does a tuned ResNet18 earn its GPU hours?

The signature of `build_pipeline`'s pipeline is the only declaration of the run parameters and their defaults.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import List, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

from components import steps
from pipelines.images import image_name
from pipelines.placement import apply_profile
from pipelines.profile import ClusterProfile

PIPELINE_NAME = "fashion-tuning"


class Comparisons(NamedTuple):
    """What the comparisons on all datasets hand on, in the order of the plan."""

    evaluations_mlp: List[Artifact]
    evaluations_resnet18: List[Artifact]
    models_mlp: List[Model]
    models_resnet18: List[Model]
    test_data: List[Dataset]
    ingest_reports: List[Artifact]


def build_pipeline(profile: ClusterProfile):
    """Return the pipeline for a cluster; the profile only decides where and in which image each step runs.

    Args:
        profile: Registry, resources and scheduling of each step; `local` for none.
    """

    def configured(task: dsl.PipelineTask, step: str, display_name: str, *, cached: bool = False) -> dsl.PipelineTask:
        task.set_display_name(display_name)
        task.set_container_image(image_name(step, profile))
        task.set_caching_options(cached)
        apply_profile(task, step, profile)
        return task

    def telling(study_root: str) -> AbstractContextManager:
        """Return what surrounds everything that is to be told of; nothing where the profile names nobody."""
        if not profile.notify:
            return nullcontext()
        settings = {"format": profile.notify.format, "link": profile.notify.link}
        told = steps.notify(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, study_root=study_root, settings=settings)
        configured(told, "notify", "Notify")
        return dsl.ExitHandler(told, name="Compare and tell")

    @dsl.pipeline(name="each-dataset", display_name="Each dataset")
    def each_dataset(
        datasets: List[dict], workers: List[str], data: dict, search: dict, train: dict, run: dict, study_root: str
    ) -> Comparisons:
        with dsl.ParallelFor(datasets, name="each dataset") as dataset:
            ingested = steps.ingest(dataset=dataset, data=data, study_root=study_root)
            configured(ingested, "ingest", "Ingest", cached=True)
            train_data, test_data = ingested.outputs["train_data"], ingested.outputs["test_data"]

            with dsl.ParallelFor(workers, name="Search with each worker") as worker:
                mlp_worker = steps.search_mlp(train_data=train_data, run=run, search=search, worker=worker)
                configured(mlp_worker, "search-mlp", "Keras Tuner worker")
                resnet18_worker = steps.search_resnet18(train_data=train_data, run=run, search=search, worker=worker)
                configured(resnet18_worker, "search-resnet18", "scikit-optimize worker")

            searched = dsl.Collected(mlp_worker.outputs["trials"])
            mlp = steps.train_mlp(train_data=train_data, run=run, train=train, searched=searched)
            configured(mlp, "train-mlp", "Train MLP", cached=True)
            searched = dsl.Collected(resnet18_worker.outputs["trials"])
            resnet18 = steps.train_resnet18(train_data=train_data, run=run, train=train, searched=searched)
            configured(resnet18, "train-resnet18", "Train ResNet18", cached=True)

            evaluated_mlp = steps.evaluate(model=mlp.outputs["model"], test_data=test_data)
            configured(evaluated_mlp, "evaluate", "Evaluate MLP", cached=True)
            evaluated_resnet18 = steps.evaluate(model=resnet18.outputs["model"], test_data=test_data)
            configured(evaluated_resnet18, "evaluate", "Evaluate ResNet18", cached=True)
        return Comparisons(
            dsl.Collected(evaluated_mlp.outputs["evaluation"]),
            dsl.Collected(evaluated_resnet18.outputs["evaluation"]),
            dsl.Collected(mlp.outputs["model"]),
            dsl.Collected(resnet18.outputs["model"]),
            dsl.Collected(test_data),
            dsl.Collected(ingested.outputs["ingest_report"]),
        )

    @dsl.pipeline(name=PIPELINE_NAME, display_name="Fashion tuning: MLP or ResNet18?")
    def fashion_tuning(
        data_datasets: List[str] = ["fashion-mnist", "fashion-products"],  # noqa: B006 - Kubeflow reads it, nobody changes it
        data_validation_fraction: float = 0.1,
        data_test_fraction: float = 0.15,
        data_min_class_count: int = 1,
        data_limit: int = 0,
        search_trials: int = 30,
        search_minutes: float = 60.0,
        search_workers: int = 2,
        search_epochs: int = 20,
        search_pruning: bool = True,
        search_warm_start: bool = True,
        search_mlp_algorithm: str = "noisy-bayesian",
        search_resnet18_algorithm: str = "gp",
        search_space: str = "described",
        study_root: str = profile.study_root,
        train_replicates: int = 3,
        train_weights: str = "",
        seed: int = 0,
        promote_champion: bool = True,
        promote_min_gain: float = 0.0,
    ):
        """Decides, for each dataset of fashion images, whether a tuned MLP is enough or a tuned ResNet18 earns its GPU hours.

        1. Plan: check every parameter and all access before a GPU is asked for. 2. For each dataset: ingest; search the
        MLP with Keras Tuner and ResNet18 with scikit-optimize under the same budget; re-train each winner with several
        seeds; evaluate both on the same held-out images. 3. Report: the verdict with its interval. 4. Promote: the
        winner replaces the champion only if it is really better. Cost: at most datasets x 2 x search_minutes GPU-minutes
        for the searches and an epoch of each running trial, plus train_replicates + 1 trainings of search_epochs epochs for each winner.

        Args:
            data_datasets: NAME or NAME=SOURCE; fashion-mnist, fashion-products or an own catalogue.
            data_validation_fraction: Share of the training part held out for validation.
            data_test_fraction: Share held out as test; Fashion-MNIST keeps its official test set.
            data_min_class_count: Smaller classes are folded into "other".
            data_limit: Keep this many examples, stratified; 0 keeps all.
            search_trials: A study ends at this many trials ...
            search_minutes: ... or with the epoch in which so many device-minutes, summed over its workers, are gone.
            search_workers: Workers per study, one GPU each.
            search_epochs: Most epochs of a trial and of a replicate.
            search_pruning: Stop weak trials early (asynchronous successive halving).
            search_warm_start: Reuse trials of earlier studies on the same data and space.
            search_mlp_algorithm: noisy-bayesian (our Keras Tuner oracle), bayesian or random (Keras Tuner's own).
            search_resnet18_algorithm: gp, forest, gbrt (expected improvement) or random (scikit-optimize).
            search_space: described or wide.
            study_root: gs://bucket/prefix or s3://bucket/prefix that holds studies, champions and caches.
            train_replicates: Seeds that each winner is re-trained with.
            train_weights: URI of ImageNet weights for ResNet18; empty trains from scratch.
            seed: Seed of splits, searches and trainings.
            promote_champion: Let the model that is best on validation challenge the champion.
            promote_min_gain: Accuracy by which a challenger must be better.
        """
        parameters = dict(locals())
        for name in ("configured", "each_dataset", "telling"):  # what surrounds this function counts as local, too
            del parameters[name]
        with telling(study_root):
            planned = steps.plan(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **parameters)
            configured(planned, "plan", "Plan")
            plan = planned.outputs

            compared = each_dataset(
                datasets=plan["datasets"],
                workers=plan["workers"],
                data=plan["data"],
                search=plan["search"],
                train=plan["train"],
                run=plan["run"],
                study_root=study_root,
            )
            compared.set_display_name("Compare on each dataset")
            evaluations = {
                "evaluations_mlp": compared.outputs["evaluations_mlp"],
                "evaluations_resnet18": compared.outputs["evaluations_resnet18"],
            }

            reported = steps.report(
                run=plan["run"],
                parameters=plan["parameters"],
                ingest_reports=compared.outputs["ingest_reports"],
                test_data=compared.outputs["test_data"],
                **evaluations,
            )
            configured(reported, "report", "Report")

            promoted = steps.promote(
                run=plan["run"],
                promotion=plan["promotion"],
                report_summary=reported.outputs["summary"],
                models_mlp=compared.outputs["models_mlp"],
                models_resnet18=compared.outputs["models_resnet18"],
                test_data=compared.outputs["test_data"],
                **evaluations,
            )
            configured(promoted, "promote", "Promote")

    return fashion_tuning
