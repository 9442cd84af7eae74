"""A checkpoint exists whole or not at all, and only for the training it belongs to."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.search.study.checkpoints import Checkpoints
from components.stores import open_store

ROOT = Path(__file__).resolve().parent.parent.parent.parent
STATE = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7), "flags": np.array([True, False])}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "checkpoints"))


def test_state_comes_back(store):
    """Arrays keep values, shapes and types, scalars included, and the meta values come with them."""
    Checkpoints(store).save(3, {**STATE, "turned": STATE["weights"].T}, {"scores": [0.5, 0.75]})
    step, state, meta = Checkpoints(store).latest()

    assert 3 == step
    assert {"scores": [0.5, 0.75]} == meta
    for name, array in {**STATE, "turned": STATE["weights"].T}.items():
        assert array.dtype == state[name].dtype
        np.testing.assert_array_equal(array, state[name], strict=True)


def test_none_without_a_checkpoint(store):
    """A training that never saved begins anew."""
    assert Checkpoints(store).latest() is None


def test_newest_of_all_writers_is_taken(store):
    """The highest step counts, whoever saved it."""
    Checkpoints(store, writer="0001").save(2, STATE)
    Checkpoints(store, writer="0002").save(3, STATE)
    Checkpoints(store, writer="0001").save(1, STATE)

    assert 3 == Checkpoints(store).latest()[0]


def test_unfinished_checkpoint_does_not_exist(store):
    """Without its manifest a checkpoint is invisible."""
    Checkpoints(store, writer="a").save(1, STATE)
    store.create("a-000002/state.safetensors", b"half")

    assert 1 == Checkpoints(store).latest()[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[: len(data) // 2],
        lambda data: b"",  # noqa: ARG005
        lambda data: b"\x80\x04cos\nsystem\n(S'true'\ntR.",  # noqa: ARG005
    ],
    ids=["bit flip", "truncation", "empty", "pickle"],
)
@pytest.mark.parametrize("part", ["state.safetensors", "manifest.json"])
def test_damaged_checkpoint_is_passed_over(store, caplog, damage, part):
    """The one before is used, with a warning; with none before, the training begins anew."""
    checkpoints = Checkpoints(store, writer="a")
    checkpoints.save(1, STATE)
    checkpoints.save(2, STATE)
    key = f"a-000002/{part}"
    store.write(key, damage(store.read(key)))

    with caplog.at_level(logging.WARNING):
        assert 1 == Checkpoints(store).latest()[0]
    assert "a-000002" in caplog.text
    store.delete("a-000001/manifest.json")
    assert Checkpoints(store).latest() is None


def test_manifest_with_a_matching_sum_but_other_content_is_passed_over(store):
    """Content that is no safetensors file is not loaded even where its sum is right."""
    checkpoints = Checkpoints(store, writer="a")
    checkpoints.save(1, STATE)
    manifest = json.loads(store.read("a-000001/manifest.json"))
    store.write("a-000001/state.safetensors", b"")
    manifest["sha256"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    store.write("a-000001/manifest.json", json.dumps(manifest).encode())

    assert Checkpoints(store).latest() is None


def test_checkpoint_of_another_training_is_passed_over(store):
    """Other hyperparameters or seeds do not fit."""
    Checkpoints(store, binding={"seed": 1}).save(1, STATE)

    assert Checkpoints(store, binding={"seed": 2}).latest() is None
    assert 1 == Checkpoints(store, binding={"seed": 1}).latest()[0]


def test_only_the_newest_of_a_writer_are_kept(store):
    """Older ones go, so that a long training does not fill the store."""
    checkpoints = Checkpoints(store, writer="a", keep=2)
    for step in range(1, 6):
        checkpoints.save(step, STATE)

    assert ["a-000004", "a-000005"] == sorted({key.split("/")[0] for key in store.list()})


def test_clear_removes_everything(store):
    """After the training nothing is left."""
    Checkpoints(store, writer="a").save(1, STATE)
    Checkpoints(store, writer="b").save(2, STATE)
    Checkpoints(store).clear()

    assert [] == store.list()


def test_clear_removes_what_a_killed_writer_left(tmp_path):
    """A process that died between a file's last byte and its name leaves neither the file nor its directory."""
    folder = tmp_path / "checkpoints"
    program = (
        "import os, signal, sys\n"
        "from components.search.study.checkpoints import Checkpoints\n"
        "from components.stores import open_store\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Checkpoints(open_store(sys.argv[1]) / 'replicates/7', writer='killed').save(1, {})\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False)
    left = [path.name for path in folder.rglob("*")]
    store = open_store(str(folder))
    Checkpoints(store / "replicates/7", writer="whole").save(1, STATE)

    Checkpoints(store / "replicates").clear()

    assert -signal.SIGKILL == killed.returncode
    assert "killed-000001" in left
    assert [] == list((folder / "replicates").iterdir())
