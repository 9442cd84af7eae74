import json

import pytest

from components.stores import open_store
from pipelines.run_results import read_summary
from tests.fakes.summary import SUMMARY


def without(name: str) -> dict:
    """A summary whose only data set lacks a field."""
    (dataset,) = SUMMARY["datasets"].values()
    return SUMMARY | {"datasets": {"fashion-mnist": {key: value for key, value in dataset.items() if key != name}}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "not a summary: [] for the whole"),
        ({"datasets": {}}, "not a summary: no parameters"),
        (SUMMARY | {"datasets": [1]}, "not a summary: [1] for datasets"),
        (without("champion"), "not a summary: no datasets.fashion-mnist.champion"),
        (without("comparison"), "not a summary: no datasets.fashion-mnist.comparison"),
    ],
)
def test_a_summary_of_another_shape_is_told_and_not_shown(content, problem, tmp_path):
    """The run succeeded all the same, so one line is all that comes of it."""
    root = str(tmp_path)
    open_store(root).create("runs/r/summary.json", json.dumps(content).encode())
    said = []

    assert None is read_summary(root, "r", said.append, lambda _uri: None, first_elsewhere=False)
    (line,) = said
    assert problem in line
    assert "see the report in Kubeflow" in line
    assert "\n" not in line


def test_a_whole_summary_is_read(tmp_path):
    """As evaluate wrote it."""
    open_store(str(tmp_path)).create("runs/r/summary.json", json.dumps(SUMMARY).encode())

    assert SUMMARY == read_summary(str(tmp_path), "r", pytest.fail, lambda _uri: None, first_elsewhere=False)
