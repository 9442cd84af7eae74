"""Run parameters: what the form, a file or a flag may send, and what is refused."""

import math

import pytest

from components.errors import ParameterError
from components.parameters import CHOICES, DataSettings, RunParameters
from pipelines.presets import PRESETS, Asked, default_parameters, read_parameters, run_parameters


@pytest.fixture
def defaults():
    return default_parameters("gs://bucket/studies")


def test_defaults_of_the_signature_are_valid(defaults):
    """The pipeline's own defaults pass their checks unchanged."""
    assert defaults == RunParameters.from_dict(defaults).to_dict()


def test_form_strings_become_typed_values(defaults):
    """Every default, sent as the text that the form sends, comes back as the typed value."""
    import json

    sent = {name: v if isinstance(v, str) else json.dumps(v) for name, v in defaults.items()}

    assert defaults == RunParameters.from_dict(sent).to_dict()


def test_whole_floats_are_integers(defaults):
    """The local runner sends integers as floats, the back end whole floats as integers."""
    checked = RunParameters.from_dict(defaults | {"search_trials": 5.0, "search_minutes": 2})

    assert (5, int, 2.0, float) == (
        checked.values["search_trials"],
        type(checked.values["search_trials"]),
        checked.values["search_minutes"],
        type(checked.values["search_minutes"]),
    )


WRONG = {
    "data_datasets": [[], "", "fashion", ["no-such-dataset"], ["fashion-mnist", "fashion-mnist"], [3], None],
    "data_validation_fraction": [0, 1, "x", math.nan],
    "data_test_fraction": [-0.1, 0.9, math.inf],
    "data_min_class_count": [0, 1.5],
    "data_limit": [-1, "all"],
    "search_trials": [-1, 0, 1e9, "ten", "", math.nan, 3.7, True, None],
    "search_minutes": [0, -1, math.inf],
    "search_workers": [0, 65],
    "search_epochs": [0, "many"],
    "search_pruning": ["yes", 2, None],
    "search_warm_start": ["on"],
    "search_mlp_algorithm": ["gp", ""],
    "search_resnet18_algorithm": ["bayesian"],
    "search_space": ["narrow"],
    "study_root": ["", "//", "gs://", "gs://user:secret@bucket", "ftp://host/x", 3, "a\nb", "x" * 1001],
    "train_replicates": [0, 21],
    "train_weights": [None],
    "seed": [-1, 2**31],
    "promote_champion": ["maybe"],
    "promote_min_gain": [-0.1, 2],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_wrong_values_are_refused_by_name(defaults, name, value):
    """A wrong value is refused with the parameter's name and nothing else."""
    with pytest.raises(ParameterError) as caught:
        RunParameters.from_dict(defaults | {name: value})

    assert [name] == [problem.split()[0] for problem in caught.value.problems]


def test_every_parameter_has_a_wrong_value_tested(defaults):
    """No parameter is left out above."""
    assert set(defaults) == set(WRONG)


def test_all_problems_are_reported_together(defaults):
    """One error lists every problem, unknown and missing names included."""
    values = defaults | {"search_trials": "ten", "search_epochs": 0, "serch_trials": 3}
    del values["seed"]

    with pytest.raises(ParameterError) as caught:
        RunParameters.from_dict(values)

    assert ["serch_trials", "search_epochs", "search_trials", "seed"] == [p.split()[0] for p in caught.value.problems]


def test_more_workers_than_trials_are_refused(defaults):
    """A worker without a trial would hold a GPU for nothing."""
    with pytest.raises(ParameterError, match="search_workers must be at most search_trials"):
        RunParameters.from_dict(defaults | {"search_trials": 1, "search_workers": 2})


def test_settings_survive_a_struct_of_floats(defaults):
    """Structs whose integers became floats give the same settings."""
    checked = RunParameters.from_dict(defaults)

    for settings in (checked.data, checked.search, checked.train):
        floats = {k: float(v) if type(v) is int else v for k, v in settings.to_dict().items()}
        assert settings == type(settings).from_dict(floats)


def test_choices_are_parameters(defaults):
    """Every drop-down belongs to a parameter whose default it offers."""
    assert all(defaults[name] in choices for name, choices in CHOICES.items())


def test_flags_go_before_the_file_and_the_file_before_the_preset(defaults, tmp_path):
    """Each way of asking changes what it names and nothing else."""
    file = tmp_path / "week.yaml"
    file.write_text("search_trials: 7\nseed: 3\ndata_datasets: [fashion-mnist]\n")
    asked = Asked("quickstart", file, ("shoes=gs://bucket/shoes.zip",), ("seed=4",))

    changed = {"search_trials": 7, "seed": 4, "data_datasets": ["shoes=gs://bucket/shoes.zip"]}
    assert defaults | PRESETS["quickstart"] | changed == asked.parameters(defaults)
    assert [True, False] == [Asked(file=file).names_datasets, Asked(settings=("seed=1",)).names_datasets]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("serch_trials: 7", "week.yaml must hold run parameters; got 'serch_trials'. Known are data_datasets"),
        ("- search_trials", "week.yaml must map run parameters to values; got list"),
        ("", "week.yaml must map run parameters to values; got NoneType"),
        ("seed: [s3cr3t", "--parameters must be a YAML file; got .*week.yaml, a mistake in line"),
        (b"seed: \xff", "--parameters must be a YAML file"),
        (None, "--parameters must be a readable file; got .*week.yaml .No such file"),
    ],
)
def test_wrong_parameter_files_are_named(defaults, tmp_path, content, problem):
    """One line says which file, and never shows a line of it: a source may have a signature."""
    file = tmp_path / "week.yaml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ParameterError, match=problem) as caught:
        Asked(file=file).parameters(defaults)
    assert "s3cr3t" not in str(caught.value)


def test_presets_name_parameters(defaults):
    """A preset changes parameters that exist, to valid values."""
    for preset in PRESETS:
        RunParameters.from_dict(run_parameters(defaults, preset, (), ()))


def test_flags_are_checked_like_parameters():
    """The options of `ingest` obey the rules of the run parameters they stand for, and one error names all wrong ones."""
    given = {"validation_fraction": "0.2", "test_fraction": "0.1", "min_class_count": "2", "limit": "1e3", "seed": "7"}
    expected = DataSettings(validation_fraction=0.2, test_fraction=0.1, min_class_count=2, limit=1000, seed=7)
    wrong = {"validation_fraction": "nan", "test_fraction": "1.5", "min_class_count": "0", "limit": "-1", "seed": "-1"}

    assert expected == DataSettings.of_flags(given)
    with pytest.raises(ParameterError) as caught:
        DataSettings.of_flags(wrong)

    flags = ["--validation-fraction", "--test-fraction", "--min-class-count", "--limit", "--seed"]
    assert flags == [problem.split()[0] for problem in caught.value.problems]


@pytest.mark.parametrize("name", ["search_trials", "data_datasets"])
@pytest.mark.parametrize("depth", [400, 3_000, 100_000])
@pytest.mark.parametrize("closing", ["", "]"])
def test_endless_lists_are_wrong_values(defaults, name, depth, closing):
    """However deeply a value is nested, it is a wrong value of a parameter and no defect."""
    setting = f"{name}={depth * '['}{depth * closing}"

    with pytest.raises(ParameterError) as caught:
        RunParameters.from_dict(run_parameters(defaults, "full", (setting,), ()))

    assert [name] == [problem.split()[0] for problem in caught.value.problems]
    assert len(str(caught.value)) < 300


def test_an_endless_parameter_file_is_wrong(tmp_path):
    """The same in a file."""
    path = tmp_path / "p.yaml"
    path.write_text("search_trials: " + 5_000 * "[" + 5_000 * "]")

    with pytest.raises(ParameterError, match="must be a YAML file"):
        read_parameters(path)


def test_a_wrong_study_root_shows_no_password(defaults):
    """What names no store is shown without the user and password in it."""
    with pytest.raises(ParameterError, match=r"^study_root must be gs://.* or a directory; got 'gs://\*\*\*@bucket'$"):
        RunParameters.from_dict(defaults | {"study_root": "gs://user:secret@bucket"})
