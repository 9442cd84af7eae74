"""`compile`: the YAML to upload in the Kubeflow UI."""

from pathlib import Path

import click

from pipelines.paths import UserPath


@click.command("compile")
@click.option("--cluster", default="gke", show_default=True, help="Cluster profile: a name or a YAML file.")
@click.option("--output", type=UserPath(), default=Path("build/fashion-tuning.yaml"), show_default=True)
@click.option("--components", "with_components", is_flag=True, help="Write each step as a reusable YAML as well.")
@click.option("--manifest", is_flag=True, help="Write it as Kubernetes resources as well, for Argo CD or Flux.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def compile_command(cluster: str, output: Path, with_components: bool, manifest: bool, debug: bool) -> None:  # noqa: ARG001
    """Compile the pipeline for a cluster."""
    from pipelines.compilation import compile_components, compile_pipeline
    from pipelines.kubeflow.manifest import write_manifest
    from pipelines.profile import load_profile

    profile = load_profile(cluster)
    click.echo(compile_pipeline(output, profile))
    if with_components:
        for path in compile_components(output.parent / "components", profile):
            click.echo(path)
    if manifest:
        click.echo(write_manifest(output, output.with_suffix(".manifest.yaml"), profile.namespace))
