"""`compile` writes the YAML to upload in the Kubeflow UI."""

import json
from pathlib import Path

import click

from pipelines.commands import DEBUG_OPTION
from pipelines.paths import UserPath


@click.command("compile")
@click.option("--cluster", default="gke", show_default=True, help="Cluster profile: a name or a YAML file.")
@click.option("--output", type=UserPath(), default=Path("build/fashion-tuning.yaml"), show_default=True)
@click.option("--components", "with_components", is_flag=True, help="Write each step as a reusable YAML as well.")
@click.option("--manifest", is_flag=True, help="Write it as Kubernetes resources as well, for Argo CD or Flux.")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON on stdout.")
@DEBUG_OPTION
def compile_command(
    cluster: str,
    output: Path,
    with_components: bool,
    manifest: bool,
    as_json: bool,
) -> None:
    """Compile the pipeline for a cluster."""
    from pipelines.compilation import compile_components, compile_pipeline
    from pipelines.kubeflow.manifest import write_manifest
    from pipelines.profile import load_profile

    profile = load_profile(cluster)
    written = {"pipeline": [compile_pipeline(output, profile)], "components": [], "manifest": []}
    if with_components:
        written["components"] = compile_components(output.parent / "components", profile)
    if manifest:
        written["manifest"] = [write_manifest(output, output.with_suffix(".manifest.yaml"), profile.namespace)]
    if as_json:
        click.echo(json.dumps({kind: [str(path) for path in paths] for kind, paths in written.items()}, indent=1))
        return
    for path in (path for paths in written.values() for path in paths):
        click.echo(path)
