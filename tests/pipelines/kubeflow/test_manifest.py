import pytest
import yaml
from kfp import compiler, dsl
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.errors import ConfigurationError
from pipelines.compilation import compile_pipeline
from pipelines.images import image_tag
from pipelines.kubeflow.manifest import manifest, write_manifest
from pipelines.kubeflow.package import Package, read_package
from pipelines.placement import apply_profile
from pipelines.profile import load_profile

COMMIT = "0123456789ab"


@pytest.fixture(autouse=True)
def _commit(monkeypatch):
    monkeypatch.setenv("IMAGE_TAG", COMMIT)
    image_tag.cache_clear()
    yield
    image_tag.cache_clear()


def test_resources_are_those_of_the_sdk(tmp_path):
    """For the same pipeline, the resources equal what the SDK itself writes, but for the version's own description."""

    @dsl.component(base_image="x", install_kfp_package=False)
    def plan() -> int:
        return 1

    @dsl.pipeline(name="fashion", description="What for.")
    def fashion():
        apply_profile(plan(), "plan", load_profile("gke"))

    options = KubernetesManifestOptions(
        pipeline_name="fashion",
        pipeline_display_name="fashion",
        pipeline_version_name=f"fashion-0.2.0-{COMMIT}",
        pipeline_version_display_name=f"0.2.0-{COMMIT}",
        namespace="team",
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(fashion, str(tmp_path / "plain.yaml"))
    compiler.Compiler().compile(
        fashion, str(tmp_path / "sdk.yaml"), kubernetes_manifest_format=True, kubernetes_manifest_options=options
    )

    package = read_package(tmp_path / "plain.yaml")
    pipeline, version = yaml.safe_load_all((tmp_path / "sdk.yaml").read_text())
    version["spec"]["description"] = package.description

    assert [pipeline, version] == manifest(package, "team")


def test_manifest_carries_the_whole_pipeline(tmp_path):
    """What is applied from git is the compiled pipeline, its drop-downs and its platform part included."""
    compiled = compile_pipeline(tmp_path / "pipeline.yaml", load_profile("gke"))

    path = write_manifest(compiled, tmp_path / "new" / "manifest.yaml", "kubeflow")

    pipeline, version = yaml.safe_load_all(path.read_text())
    assert list(yaml.safe_load_all(compiled.read_text())) == [
        version["spec"]["pipelineSpec"],
        version["spec"]["platformSpec"],
    ]
    assert ("fashion-tuning", f"fashion-tuning-0.2.0-{COMMIT}") == (
        pipeline["metadata"]["name"],
        version["metadata"]["name"],
    )
    assert {"kubeflow"} == {resource["metadata"]["namespace"] for resource in (pipeline, version)}


@pytest.mark.parametrize("tag", ["Sha256:aa", "sha256:0123", "a" * 250, "v1_0"])
def test_version_must_be_a_resource_name(tag, tmp_path):
    """A tag that Kubernetes would refuse as a name is refused here."""
    package = Package(tmp_path, ({"pipelineInfo": {"name": "fashion-tuning"}},), f"0.2.0-{tag}", "", ())
    with pytest.raises(ConfigurationError, match="a version's name must be a DNS name"):
        manifest(package, "kubeflow")
