"""Compilation turns the graph into one YAML, which is uploaded, submitted and run locally."""

import tempfile
from pathlib import Path

import yaml
from kfp import compiler
from kfp.components import load_component_from_text

from components import parameters, steps
from components.errors import FashionTuningError, using
from pipelines.driver_rules import driver_problems
from pipelines.fashion_tuning import build_pipeline
from pipelines.images import image_name
from pipelines.profile import ClusterProfile
from pipelines.targets import IMAGE_TARGETS


def compile_pipeline(output: Path, profile: ClusterProfile) -> Path:
    """Write the pipeline's YAML for a cluster.

    Choices become drop-downs of Kubeflow's form: the SDK cannot declare them, the specification can.

    Args:
        output: File to write; its folder is made.
        profile: The cluster to compile for.

    Returns:
        `output`.

    Raises:
        FashionTuningError: Kubeflow's driver would refuse a task of the graph: a defect.
    """
    with tempfile.TemporaryDirectory() as folder:
        unchecked = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(build_pipeline(profile), str(unchecked))
        documents = list(yaml.safe_load_all(unchecked.read_text(encoding="utf-8")))
    spec = documents[0]
    declared = spec["root"]["inputDefinitions"]["parameters"]
    for name, choices in parameters.CHOICES.items():
        declared[name]["literals"] = list(choices)
    problems = driver_problems(documents)
    if problems:
        raise FashionTuningError(f"the graph must pass Kubeflow's driver; got {'; '.join(problems)}")
    text = yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True, width=120)
    load_component_from_text(text)
    with using(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return output


def compile_components(directory: Path, profile: ClusterProfile) -> list[Path]:
    """Write each step as a reusable component YAML that names its image; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for step in IMAGE_TARGETS:
        path = directory / f"{step}.yaml"
        compiler.Compiler().compile(getattr(steps, step.replace("-", "_")), str(path))
        component = yaml.safe_load(path.read_text(encoding="utf-8"))
        for executor in component["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = image_name(step, profile)
        path.write_text(yaml.safe_dump(component, sort_keys=True, width=120), encoding="utf-8")
        written.append(path)
    return written
