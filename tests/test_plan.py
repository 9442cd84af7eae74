"""The plan step: what is wrong is found before a GPU is asked for, what is right becomes lists and structs."""

import pytest

from components.errors import ParameterError, StorageError
from components.plan import make_plan
from pipelines.presets import default_parameters


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"x")
    return folder


@pytest.fixture
def parameters(tmp_path, source):
    return default_parameters(str(tmp_path / "studies")) | {"data_datasets": [f"fashion-mnist={source}"]}


def test_lists_and_structs(parameters, tmp_path, source):
    """Datasets come with source and version, workers with names, settings as structs."""
    plan = make_plan("0A-b_c", parameters, str(tmp_path / "overview.md"))

    assert ("fashion-mnist", str(source)) == (plan.datasets[0]["name"], plan.datasets[0]["source"])
    assert ["worker-0", "worker-1"] == plan.workers
    assert (30, 3, 0.1) == (plan.search["trials"], plan.train["replicates"], plan.data["validation_fraction"])
    assert "0a-b-c" == plan.run["study_prefix"]
    assert "120 device-minutes" in (tmp_path / "overview.md").read_text()


def test_version_changes_with_the_data(parameters, tmp_path, source):
    """A changed file changes the version, so that a cached ingest is not reused."""
    before = make_plan("run", parameters, str(tmp_path / "a.md")).datasets
    (source / "train-images-idx3-ubyte.gz").write_bytes(b"other")

    assert before != make_plan("run", parameters, str(tmp_path / "b.md")).datasets


def test_all_problems_are_in_the_markdown(parameters, tmp_path):
    """Every wrong parameter is listed where the UI shows it, and in the error."""
    overview = tmp_path / "overview.md"

    with pytest.raises(ParameterError) as caught:
        make_plan("run", parameters | {"search_trials": "-1", "search_space": "x"}, str(overview))

    assert 2 == len(caught.value.problems)
    assert all(problem in overview.read_text() for problem in caught.value.problems)


def test_study_root_is_needed(parameters, tmp_path):
    """Without a study root there is nothing to share trials through."""
    with pytest.raises(ParameterError, match="study_root must be"):
        make_plan("run", parameters | {"study_root": ""}, str(tmp_path / "o.md"))


@pytest.mark.parametrize("wrong", [{}, {"search_trials": 0}])
def test_a_full_disk_is_told_with_the_file(parameters, wrong):
    """The overview is the first file that a run writes: an error names it and says what to do."""
    with pytest.raises(
        StorageError, match=r"^/dev/full must be usable; got No space left on device\. Free some space$"
    ):
        make_plan("run", parameters | wrong, "/dev/full")
