import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from components.data.contract import TestData
from components.data.digests import digest_images, short_digests
from components.errors import DataError, ParameterError, TryAgainError
from components.evaluation.champion import judge as challenge
from components.evaluation.champion.gate import promote, rollback, show
from components.evaluation.champion.records import ChampionRecords, model_digest
from components.evaluation.evaluate import evaluate
from components.evaluation.summary import collect, summarise
from components.stores import open_store
from tests.evaluation.builders import make_test_data, write_model

ROOT = Path(__file__).resolve().parents[3]
NAME = "fashion-mnist"


class Run:
    """One run's artifacts, and its promotion."""

    def __init__(
        self, directory: Path, run_id: str, data: TestData, *, blur: float, seed: int = 0, approach: str = "mlp"
    ):
        self.directory = directory / run_id
        self.run_id = run_id
        self.test_dir = self.directory / "test"
        data.save(self.test_dir)
        self.model_dir = write_model(self.directory / "model", data, approach, blur=blur, seed=seed, num_replicates=1)
        self.evaluation_dir = self.directory / "evaluation"
        self.evaluation = evaluate(self.model_dir, self.test_dir, self.evaluation_dir)
        self.accuracy = self.evaluation.record["scores"]["accuracy"]

    def promote(self, root: Path, *, enabled: bool = True, min_gain: float = 0.0) -> dict:
        summary = summarise(collect([self.evaluation_dir], [], [self.test_dir]), {})
        promoted = promote(
            summary=summary,
            model_dirs=[self.model_dir],
            evaluation_dirs=[self.evaluation_dir],
            test_dirs=[self.test_dir],
            root=str(root),
            enabled=enabled,
            min_gain=min_gain,
            run={"id": self.run_id},
        )
        return promoted["datasets"][NAME]["champion"]


@pytest.fixture
def data() -> TestData:
    return dataclasses.replace(make_test_data(num_examples=600, noise=90.0), seen=np.arange(1100, dtype=np.uint64))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def weak(tmp_path: Path, data: TestData) -> Run:
    return Run(tmp_path, "weak", data, blur=0.5, seed=3)


@pytest.fixture
def strong(tmp_path: Path, data: TestData) -> Run:
    return Run(tmp_path, "strong", data, blur=0.0)


def _record_path(root: Path, version: int) -> Path:
    return root / "champions" / NAME / f"{version:06d}.json"


def test_the_first_model_becomes_champion_with_its_files(root: Path, weak: Run) -> None:
    """The first champion is version 1; its ONNX, description and model card outlive the run."""
    found = weak.promote(root)

    assert ("first", 1) == (found["decision"], found["version"])
    record = json.loads(_record_path(root, 1).read_text())
    folder = root / "champions" / NAME / "models" / record["sha256"]
    assert (weak.model_dir / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert (weak.model_dir / "model.json").read_bytes() == (folder / "model.json").read_bytes()
    assert (folder / "model_card.md").read_text().startswith("---\nlicense: mit\n")


def test_a_better_model_replaces_the_champion(root: Path, weak: Run, strong: Run) -> None:
    """A clearly better challenger becomes the next version, and the earlier one stays in the history."""
    weak.promote(root)

    found = strong.promote(root)

    assert strong.accuracy > weak.accuracy + 0.05
    assert ("better", 2) == (found["decision"], found["version"])
    assert [2, 1] == [record["version"] for record in show(str(root), NAME)]


def test_a_worse_model_does_not(root: Path, weak: Run, strong: Run) -> None:
    """A clearly worse challenger is turned away, and the reason gives both accuracies."""
    strong.promote(root)

    found = weak.promote(root)

    assert ("worse", 1) == (found["decision"], found["version"])
    assert f"{100 * weak.accuracy:.2f} %" in found["reason"]
    assert f"{100 * strong.accuracy:.2f} %" in found["reason"]
    assert 1 == len(list((root / "champions" / NAME / "models").iterdir()))


def test_swapping_the_two_flips_the_decision(root: Path, weak: Run, strong: Run, tmp_path: Path) -> None:
    """Whoever came first, the better model ends as champion."""
    weak.promote(root)
    strong.promote(root)
    strong.promote(tmp_path / "other")
    weak.promote(tmp_path / "other")

    assert show(str(root), NAME)[0]["sha256"] == show(str(tmp_path / "other"), NAME)[0]["sha256"]


def test_a_tie_keeps_the_champion(root: Path, tmp_path: Path, data: TestData, strong: Run) -> None:
    """A difference whose interval includes zero is a tie, even where the challenger has more right answers."""
    almost = Run(tmp_path, "almost", data, blur=0.01, seed=8)
    almost.promote(root)

    found = strong.promote(root)

    assert ("tie", 1) == (found["decision"], found["version"])


def test_the_same_file_is_no_challenger(root: Path, tmp_path: Path, data: TestData, strong: Run) -> None:
    """Training that gives the champion again changes nothing."""
    strong.promote(root)

    found = Run(tmp_path, "again", data, blur=0.0).promote(root)

    assert ("same-model", 1) == (found["decision"], found["version"])


def test_a_gain_below_the_minimum_is_too_small(root: Path, weak: Run, strong: Run) -> None:
    """`promote_min_gain` is a bar that a real but smaller difference does not pass."""
    weak.promote(root)

    found = strong.promote(root, min_gain=strong.accuracy - weak.accuracy + 0.01)

    assert ("too-small", 1) == (found["decision"], found["version"])


def test_a_better_model_that_loses_a_class_is_turned_away() -> None:
    """A gain overall does not excuse a class on which the images do not rule out a loss beyond the margin."""
    labels = np.repeat([0, 1, 2], [500, 100, 40])
    champion, challenger = labels.copy(), labels.copy()
    champion[:200] = 1
    challenger[500:515] = 0

    found = challenge.decide(challenger, champion, labels, np.arange(640), ["a", "bag", "c"], 0.0)

    assert "worse-class" == found.decision
    assert "a loss of 12.0 points on bag: of 100 images 15 were lost and 0 won" in found.reason
    assert not found.promotes


def test_small_classes_have_a_voice_together() -> None:
    """Classes below 30 test images are judged as one, and the reason says so."""
    labels = np.repeat([0, 1, 2], [500, 25, 25])
    champion, challenger = labels.copy(), labels.copy()
    champion[:200] = 1
    challenger[500:520] = 0

    found = challenge.decide(challenger, champion, labels, np.arange(550), ["a", "b", "c"], 0.0)

    assert "worse-class" == found.decision
    assert "on the 2 smallest classes together (b, c): of 50 images 20 were lost" in found.reason


def test_a_difference_that_is_no_proof_is_named() -> None:
    """Outside the interval is not enough: a year's challenges share the chance of an error."""
    labels = np.zeros(1000, int)
    champion, challenger = labels.copy(), labels.copy()
    champion[:12], challenger[12:15] = 1, 1

    found = challenge.decide(challenger, champion, labels, np.arange(1000), ["a", "b"], 0.0)

    assert "not-proven" == found.decision
    assert "exact p = 0.018, where up to 0.00094 is proof" in found.reason
    assert "better" == challenge.decide(challenger, champion, labels, np.arange(1000), ["a", "b"], 0.0, 0.02).decision


def test_copies_of_one_image_are_no_evidence() -> None:
    """Fifty copies of a picture the challenger wins are one picture, not a reason to promote."""
    labels = np.zeros(100, int)
    champion, challenger = labels.copy(), labels.copy()
    champion[:50] = 1
    groups = np.where(np.arange(100) < 50, 0, np.arange(100))

    assert "tie" == challenge.decide(challenger, champion, labels, groups, ["a", "b"], 0.0).decision
    assert "better" == challenge.decide(challenger, champion, labels, np.arange(100), ["a", "b"], 0.0).decision


def test_switched_off_it_decides_nothing(root: Path, strong: Run) -> None:
    """`promote_champion` false leaves the store untouched."""
    found = strong.promote(root, enabled=False)

    assert ("disabled", None) == (found["decision"], found["version"])
    assert not root.exists()


def test_without_a_usable_model_the_champion_stays(root: Path, weak: Run) -> None:
    """When no trial was usable there is no challenger, and the champion is named unchanged."""
    weak.promote(root)
    summary = summarise(collect([], [], [weak.test_dir]), {})

    arguments = {"model_dirs": [], "evaluation_dirs": [weak.directory], "test_dirs": [weak.test_dir]}
    found = promote(summary=summary, **arguments, root=str(root), enabled=True, min_gain=0.0, run={"id": "x"})

    champion = found["datasets"][NAME]["champion"]
    assert ("no-model", 1) == (champion["decision"], champion["version"])
    assert [1] == [record["version"] for record in show(str(root), NAME)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"sha256": 5}', b"\x00" * 100])
def test_a_corrupt_record_stops_promotions_until_somebody_looks(
    root: Path, weak: Run, strong: Run, content: bytes
) -> None:
    """An unreadable champion is neither trusted nor overwritten; a rollback restores the model before it."""
    weak.promote(root)
    _record_path(root, 2).write_bytes(content)

    found = strong.promote(root)

    assert ("corrupt", 2) == (found["decision"], found["version"])
    assert "error" in show(str(root), NAME)[0]
    restored = rollback(str(root), NAME)
    assert (3, 1) == (restored["version"], restored["restores"])
    assert "better" == strong.promote(root)["decision"]


@pytest.mark.parametrize("change", [{"predecessor": "1"}, {"classes": [3]}, {"run": "nightly"}, {"reason": None}])
def test_a_record_of_another_shape_is_corrupt(root: Path, weak: Run, strong: Run, change: dict) -> None:
    """Whole JSON with a value of another kind is told as damage, by whatever reads it, and can be rolled back."""
    weak.promote(root)
    content = json.loads(_record_path(root, 1).read_bytes())
    _record_path(root, 2).write_text(json.dumps(content | change))

    assert "error" in show(str(root), NAME)[0]
    assert "corrupt" == strong.promote(root)["decision"]
    assert 3 == rollback(str(root), NAME)["version"]


def test_a_missing_model_is_named(root: Path, weak: Run, strong: Run) -> None:
    """A champion whose file is gone cannot be scored: the decision says so and nothing changes."""
    weak.promote(root)
    sha256 = show(str(root), NAME)[0]["sha256"]
    (root / "champions" / NAME / "models" / sha256 / "model.onnx").unlink()

    found = strong.promote(root)

    assert ("missing", 1) == (found["decision"], found["version"])


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"x" + b[1:]])
def test_a_damaged_model_is_named(root: Path, weak: Run, strong: Run, damage: object) -> None:
    """A champion whose bytes are not the promoted ones is corrupt, whatever they would score."""
    weak.promote(root)
    path = root / "champions" / NAME / "models" / show(str(root), NAME)[0]["sha256"] / "model.onnx"
    path.write_bytes(damage(path.read_bytes()))

    assert "corrupt" == strong.promote(root)["decision"]


def test_other_classes_are_named(root: Path, tmp_path: Path, weak: Run) -> None:
    """A champion that knows other classes is not compared; the reason lists what is new and what is gone."""
    weak.promote(root)
    other = make_test_data(classes=("shirt", "trouser", "scarf"), num_examples=300)

    found = Run(tmp_path, "other", other, blur=0.0).promote(root)

    assert ("other-classes", 1) == (found["decision"], found["version"])
    assert "scarf" in found["reason"]
    assert "bag" in found["reason"]


def test_the_same_classes_in_another_order_are_compared_by_name(root: Path, tmp_path: Path, data: TestData) -> None:
    """Labels are translated by class name, so a reordering does not make a good champion look bad."""
    Run(tmp_path, "champion", data, blur=0.0).promote(root)
    records = ChampionRecords(open_store(str(root)), NAME)
    renamed = {**records.current().content, "classes": ["bag", "trouser", "shirt"]}
    assert records.create(2, renamed)

    found = Run(tmp_path, "challenger", data, blur=0.01, seed=5).promote(root)

    assert "better" == found["decision"]  # the record claims that output 0 means bag: by name it is wrong on most


def test_other_data_is_scored_on_the_present_images_and_said(root: Path, tmp_path: Path, weak: Run) -> None:
    """A champion of last week's data answers for this week's images, and the reason says that its data differ."""
    weak.promote(root)
    present = make_test_data(num_examples=500, seed=1, noise=90.0)

    found = Run(tmp_path, "present", present, blur=0.0).promote(root)

    assert "better" == found["decision"]
    assert "trained on other data" in found["reason"]
    assert "on 500 test images" in found["reason"]


def test_images_that_trained_the_champion_do_not_judge_it(root: Path, tmp_path: Path) -> None:
    """Of today's test images only those count that neither model was trained or selected on."""
    present = make_test_data(num_examples=500, seed=1, noise=90.0)
    known = np.unique(short_digests(digest_images(present.images[:380])))
    past = dataclasses.replace(make_test_data(num_examples=600, noise=90.0), seen=known)
    Run(tmp_path, "past", past, blur=0.5, seed=3).promote(root)

    found = Run(tmp_path, "present", present, blur=0.0).promote(root)

    assert "on 120 test images" in found["reason"]
    assert "proof for one of a year's challenges. 380 test images that one of them was" in found["reason"]


def test_too_few_images_that_are_new_to_both_are_named(root: Path, tmp_path: Path) -> None:
    """Where the champion was trained on nearly all of the test images, nothing is decided and nothing spent."""
    present = make_test_data(num_examples=500, seed=1, noise=90.0)
    known = np.unique(short_digests(digest_images(present.images[:471])))
    past = dataclasses.replace(make_test_data(num_examples=600, noise=90.0), seen=known)
    Run(tmp_path, "past", past, blur=0.5, seed=3).promote(root)

    found = Run(tmp_path, "present", present, blur=0.0).promote(root)

    assert ("too-few-unseen", 1) == (found["decision"], found["version"])
    assert "29 of 500 test images are new to both models" in found["reason"]
    assert not (root / "champions" / NAME / "challenges").exists()


def test_a_champion_of_before_is_named(root: Path, tmp_path: Path, weak: Run, strong: Run) -> None:
    """A record without training images decides on the data it was made of, and on no other."""
    weak.promote(root)
    (root / "champions" / NAME / "models" / show(str(root), NAME)[0]["sha256"] / "seen.npy").unlink()

    other = Run(tmp_path, "present", make_test_data(num_examples=500, seed=1, noise=90.0), blur=0.0).promote(root)
    same = strong.promote(root)

    assert ("training-unknown", 1) == (other["decision"], other["version"])
    assert "no test image is known to be new" in other["reason"]
    assert "better" == same["decision"]


def test_damaged_training_images_are_named(root: Path, tmp_path: Path, weak: Run) -> None:
    """Nothing is judged by a list of training images that cannot be read."""
    weak.promote(root)
    path = root / "champions" / NAME / "models" / show(str(root), NAME)[0]["sha256"] / "seen.npy"
    path.write_bytes(path.read_bytes()[:-5])

    found = Run(tmp_path, "present", make_test_data(num_examples=500, seed=1, noise=90.0), blur=0.0).promote(root)

    assert ("corrupt", 1) == (found["decision"], found["version"])


def test_repeating_a_challenge_spends_nothing(
    root: Path, tmp_path: Path, data: TestData, weak: Run, strong: Run
) -> None:
    """Retries, equal runs and rollbacks read the record of their challenge; another model or other images add one."""
    challenges = root / "champions" / NAME / "challenges"
    strong.promote(root)
    weak.promote(root)
    weak.promote(root)
    again = Run(tmp_path, "again", data, blur=0.5, seed=3)
    again.promote(root)
    assert 1 == len(list(challenges.iterdir()))

    Run(tmp_path, "other", data, blur=0.4, seed=4).promote(root)
    assert 2 == len(list(challenges.iterdir()))

    fewer = dataclasses.replace(
        data, images=data.images[1:], labels=data.labels[1:], groups=data.groups[1:], info=data.info
    )
    Run(tmp_path, "fewer", fewer, blur=0.5, seed=3).promote(root)
    assert [1, 2, 3] == sorted(int(p.stem) for p in challenges.iterdir())
    assert [0, 1, 2] == sorted(json.loads(p.read_text())["num_before"] for p in challenges.iterdir())


def test_a_rollback_spends_nothing(root: Path, weak: Run, strong: Run) -> None:
    """The way back is no challenge, and the same challenge after it costs nothing either."""
    weak.promote(root)
    strong.promote(root)
    rollback(str(root), NAME)
    strong.run_id = "a later run"

    found = strong.promote(root)

    assert ("better", 4) == (found["decision"], found["version"])
    assert ["000001.json"] == [p.name for p in (root / "champions" / NAME / "challenges").iterdir()]


def test_a_champion_that_cannot_take_the_images_is_named(root: Path, tmp_path: Path, weak: Run) -> None:
    """Images of another shape are other data: the champion cannot run, and stays."""
    weak.promote(root)
    coloured = make_test_data(num_examples=300, channels=3)

    found = Run(tmp_path, "coloured", coloured, blur=0.0).promote(root)

    assert ("other-data", 1) == (found["decision"], found["version"])


def test_stored_figures_are_never_used(root: Path, weak: Run, strong: Run) -> None:
    """A champion whose record boasts of 100 % is still re-scored and replaced."""
    weak.promote(root)
    records = ChampionRecords(open_store(str(root)), NAME)
    boast = {**records.current().content, "figures": {"accuracy": 1.0, "macro_f1": 1.0, "num_examples": 600}}
    assert records.create(2, boast)

    assert "better" == strong.promote(root)["decision"]


def test_a_promotion_that_runs_again_gives_the_same_answer(root: Path, weak: Run, strong: Run) -> None:
    """A retried step finds its own record: same decision, same version, no new record."""
    weak.promote(root)
    once = strong.promote(root)

    assert once == strong.promote(root)
    assert 2 == len(show(str(root), NAME))


def test_the_challenger_is_chosen_on_validation(root: Path, tmp_path: Path, data: TestData) -> None:
    """Not the images that it is judged on choose the challenger: the approach with the higher validation accuracy challenges."""
    runs = [
        Run(tmp_path, "one", data, blur=0.5, seed=3, approach="mlp"),
        Run(tmp_path, "two", data, blur=0.0, approach="resnet18"),
    ]
    evaluations = [r.evaluation_dir for r in runs]
    summary = summarise(collect(evaluations, [], [runs[0].test_dir]), {})
    assert "resnet18" == summary["datasets"][NAME]["comparison"]["winner"]

    for number, (better, accuracies) in enumerate({"mlp": (0.91, 0.9), "resnet18": (0.9, 0.91)}.items()):
        for approach, accuracy in zip(("mlp", "resnet18"), accuracies, strict=True):
            summary["datasets"][NAME]["approaches"][approach]["validation_accuracy"] = accuracy
        promoted = promote(
            summary=summary,
            model_dirs=[r.model_dir for r in reversed(runs)],
            evaluation_dirs=evaluations,
            test_dirs=[runs[0].test_dir],
            root=str(root / str(number)),
            enabled=True,
            min_gain=0.0,
            run={"id": "r"},
        )

        assert better == show(str(root / str(number)), NAME)[0]["approach"]
        expected = {"decision": "first", "version": 1, "reason": "there was no champion"}
        assert expected == promoted["datasets"][NAME]["champion"]


def test_rolling_back_twice_goes_back_two_models(root: Path, tmp_path: Path, data: TestData) -> None:
    """A rollback is the next version, keeps the history, and follows restored versions instead of flipping."""
    for number, blur in enumerate((0.6, 0.3, 0.0)):
        Run(tmp_path, f"run-{number}", data, blur=blur, seed=3).promote(root)
    models = [record["sha256"] for record in reversed(show(str(root), NAME))]
    assert 3 == len(set(models))

    first, second = rollback(str(root), NAME), rollback(str(root), NAME)

    assert (4, 2, models[1]) == (first["version"], first["restores"], first["sha256"])
    assert (5, 1, models[0]) == (second["version"], second["restores"], second["sha256"])
    assert 5 == len(show(str(root), NAME))
    assert 5 == len({record["nonce"] for record in show(str(root), NAME)})
    with pytest.raises(ParameterError, match="must have a readable predecessor"):
        rollback(str(root), NAME)


def test_without_a_champion_there_is_nothing_to_roll_back(root: Path) -> None:
    """A rollback before the first promotion is refused."""
    with pytest.raises(DataError, match="must exist before a rollback"):
        rollback(str(root), NAME)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "<script>", "x" * 200, ".hidden"])
def test_a_dataset_name_cannot_lead_elsewhere(root: Path, name: str) -> None:
    """A name that is not one part of a key is refused."""
    with pytest.raises(ParameterError, match="dataset must be"):
        show(str(root), name)


def test_a_rollback_beside_a_promotion_asks_to_look_again(
    root: Path, weak: Run, strong: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the next number was taken in the meantime, the rollback changes nothing."""
    weak.promote(root)
    strong.promote(root)
    monkeypatch.setattr(ChampionRecords, "create", lambda *_: None)

    with pytest.raises(TryAgainError, match="must not change during a rollback"):
        rollback(str(root), NAME)


@pytest.mark.parametrize("number", [16, pytest.param(100, marks=pytest.mark.slow)])
def test_promotions_at_once_give_an_order(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Of many concurrent promotions each that says it won has its own version, without a gap and with its own model."""
    monkeypatch.setattr(challenge, "decide", lambda *_: challenge.Judgement(decision="better", reason="for the race"))
    template = Run(tmp_path, "template", make_test_data(num_examples=20), blur=0.0)
    models = [_variant(template.model_dir, tmp_path / "models" / str(n), n) for n in range(number)]
    barrier = threading.Barrier(number)

    def one(place: int) -> dict:
        run = object.__new__(Run)
        run.__dict__ |= {**template.__dict__, "run_id": f"run-{place}", "model_dir": models[place]}
        barrier.wait()
        return run.promote(root)

    with ThreadPoolExecutor(number) as pool:
        entries = list(pool.map(one, range(number)))

    records = ChampionRecords(open_store(str(root)), NAME)
    assert list(range(1, number + 1)) == sorted(entry["version"] for entry in entries) == records.versions()
    assert 1 == [entry["decision"] for entry in entries].count("first")
    for place, entry in enumerate(entries):
        record = records.read(entry["version"])
        assert f"run-{place}" == record.content["run"]["id"]
        assert model_digest(models[place]) == record.sha256


def _variant(model_dir: Path, directory: Path, number: int) -> Path:
    """Copy a model so that it has a digest of its own: ONNX readers skip an unknown trailing field."""
    directory.mkdir(parents=True)
    (directory / "model.json").write_bytes((model_dir / "model.json").read_bytes())
    tail = number.to_bytes(4, "little")
    (directory / "model.onnx").write_bytes(
        (model_dir / "model.onnx").read_bytes() + b"\xfa\x06" + bytes([len(tail)]) + tail
    )
    return directory


_KILLED = """
import os, signal, sys
from pathlib import Path
from components.evaluation.champion.records import ChampionRecords, model_digest
sys.path.insert(0, {root!r})
from tests.evaluation.champion import test_champion as t
create = ChampionRecords.create
def killed(self, version, content):
    if {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    create(self, version, content)
    os.kill(os.getpid(), signal.SIGKILL)
ChampionRecords.create = killed
run = object.__new__(t.Run)
base = Path({directory!r})
run.__dict__ |= dict(directory=base, run_id="strong", test_dir=base / "test", model_dir=base / "model",
                     evaluation_dir=base / "evaluation")
run.promote(Path({store!r}))
"""


@pytest.mark.parametrize("before", [True, False])
def test_killed_around_the_record_the_champion_is_old_or_new(root: Path, weak: Run, strong: Run, before: bool) -> None:
    """SIGKILL before the record leaves the old champion, after it the new one; the repeated step ends the same way."""
    weak.promote(root)
    program = _KILLED.format(root=str(ROOT), before=before, directory=str(strong.directory), store=str(root))

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )

    assert -signal.SIGKILL == ended.returncode
    assert (1 if before else 2) == show(str(root), NAME)[0]["version"]
    found = strong.promote(root)
    assert ("better", 2) == (found["decision"], found["version"])
    assert [2, 1] == [record["version"] for record in show(str(root), NAME)]


def test_a_model_that_is_not_among_the_artifacts_stops_the_step(root: Path, weak: Run) -> None:
    """An evaluation whose model was not handed over is an error, not a guess."""
    summary = summarise(collect([weak.evaluation_dir], [], [weak.test_dir]), {})

    with pytest.raises(DataError, match="must be among the 0 directories"):
        promote(
            summary=summary,
            model_dirs=[],
            evaluation_dirs=[weak.evaluation_dir],
            test_dirs=[weak.test_dir],
            root=str(root),
            enabled=True,
            min_gain=0.0,
            run={"id": "x"},
        )
