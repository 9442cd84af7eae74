"""The steps around the search are killed with -9 at their first, second and last write, and run again."""

import json
import re

import numpy as np
import pytest

from components.data.sample.sample import write_sample
from components.evaluation.champion.gate import show
from components.evaluation.evaluate import evaluate
from tests.evaluation.builders import make_test_data, write_ingest_report, write_model
from tests.search import steps_to_kill
from tests.search.processes import lines, run_worker
from tests.search.steps_to_kill import DATASETS, run

STEPS = {
    "fill_cache": "W5, raw files half fetched",
    "write_datasets": "P1, data sets half written",
    "train": "P2, final training in the middle of an epoch",
    "score": "P3, figures half written",
    "report": "P4, report half written",
    "promote_before": "P5, before a champion is made",
    "promote_after": "P6, after a champion was made",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, gcs_server):
    """The inputs of every step, made once, and a home for each kill."""
    directory = tmp_path_factory.mktemp("steps")
    write_sample(directory / "sample", num_train=40, num_test=20, num_products=100)
    for path in (directory / "sample" / "fashion-mnist").iterdir():
        gcs_server.put("bucket", f"raw/{path.name}", path.read_bytes())
    for seed, name in enumerate(DATASETS):
        folder = directory / "inputs" / name
        data = make_test_data(name, num_examples=60, seed=seed)
        data.save(folder / "test")
        write_ingest_report(folder / "ingest", data)
        write_model(folder / "model", data, num_replicates=2)
        evaluate(folder / "model", folder / "test", folder / "evaluation")
    return directory


@pytest.fixture(scope="module")
def uninterrupted(base, gcs_server):
    """Runs a step undisturbed, once; returns how many points it passed and what it made."""
    known = {}

    def find(name, kind):
        if (name, kind) not in known:
            root = f"gs://bucket/undisturbed-{name}" if kind == "gcs" else str(base / f"store-{name}")
            directory = base / f"undisturbed-{name}-{kind}"
            environment = {"STORAGE_EMULATOR_HOST": gcs_server.url}
            prepare(name, root, base, environment)
            assert 0 == run(getattr(steps_to_kill, name), directory, root, environment)
            known[name, kind] = lines(directory / "passed")[0]["points"], made(name, directory, root)
        return known[name, kind]

    return find


def prepare(name, root, base, environment):
    """The final training needs a finished study."""
    if name == "train":
        assert 0 == run_worker(root, base / "log", settings={"trials": 2}, environment=environment)


def made(name, directory, root):
    """What a step made, without what times and hardware decide."""
    out = directory / "out"
    if name in ("fill_cache", "write_datasets"):
        files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
        return {key: value for key, value in files.items() if not key.startswith("report/")}
    if name == "train":
        model = json.loads((out / "model.json").read_text())
        files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.onnx"))}
        return [(r["seed"], r["scores"]) for r in model["replicates"]], model["best_seed"], files
    if name == "score":
        with np.load(out / "predictions.npz") as arrays:
            predictions = {key: arrays[key].tobytes() for key in arrays.files}
        record = json.loads((out / "evaluation.json").read_text())
        return predictions, record["scores"], record["accuracy_ci95"]
    if name == "report":
        page = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", "", (out / "report.html").read_text())
        return page, json.loads((out / "summary.json").read_text()), (out / "report.md").read_text()
    champions = {dataset: show(root, dataset) for dataset in DATASETS}
    assert [1] * 3 == [len(history) for history in champions.values()]
    return {dataset: history[0]["sha256"] for dataset, history in champions.items()}


@pytest.mark.parametrize("kind", ["local", "gcs"])
@pytest.mark.parametrize("occurrence", ["first", "second", "last"])
@pytest.mark.parametrize("name", STEPS)
def test_killed_step_is_repeated_to_the_same_output(
    name, occurrence, kind, base, make_place, uninterrupted, gcs_server, monkeypatch
):
    """A step that was killed and runs again makes what an undisturbed one makes, and leaves no half of anything."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    points, expected = uninterrupted(name, kind)
    place, directory = make_place(kind), base / f"{name}-{occurrence}-{kind}"
    environment = {"STORAGE_EMULATOR_HOST": gcs_server.url}
    step = getattr(steps_to_kill, name)
    prepare(name, place.uri, base, environment)
    at = {"first": 1, "second": 2, "last": points}[occurrence]
    assert -9 == run(step, directory, place.uri, environment, kill_at=at)

    assert 0 == run(step, directory, place.uri, environment)
    assert expected == made(name, directory, place.uri)
    if name == "train":
        epochs = [(line["seed"], line["epoch"]) for line in lines(directory / "epochs")]
        assert len(epochs) - len(set(epochs)) <= 3  # at most the replicate that was running
