"""What a study knows of its workers, and when it lets one take another's trial."""

import dataclasses
import json

import pytest

from components.errors import DataError, ParameterError
from components.search.study import claims
from components.search.study.claims import Liveness, Timing, is_gone, process_identity
from components.search.study.study import Study, StudySpec
from components.search.trial import Trial
from components.stores import open_store
from components.training_step import check_study
from tests.search import toy

SPEC = StudySpec(
    approach="mlp",
    dataset="toy",
    data_hash="0",
    space=toy.SPACE.to_json(),
    algorithm="random",
    trials=3,
    minutes=60,
    epochs=1,
)


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def root(tmp_path):
    return open_store(str(tmp_path))


@pytest.fixture
def open_study(root, clock, monkeypatch):
    """Opens the study as another worker would; processes of the machine tell nothing unless asked to."""
    monkeypatch.setattr("components.search.study.study.process_identity", dict)

    def open_study(spec=SPEC, **timing):
        return Study.create_or_open(root, "s", spec, timing=Timing(clock=clock, **timing))

    return open_study


def suggest(number, ledger):  # noqa: ARG001
    return {"x": number / 10, "kind": "a"}, ""


def done(claim, score=0.5, **changes):
    trial = Trial(
        number=claim.number, status="completed", hyperparameters=claim.hyperparameters, score=score, worker=claim.worker
    )
    return dataclasses.replace(trial, **changes)


def test_workers_get_different_trials(open_study):
    """Each claims the lowest trial nobody works on, and none once the budget is given out."""
    studies = [open_study() for _ in range(4)]
    claims_ = [study.claim_next(f"w{n}", suggest) for n, study in enumerate(studies)]

    assert [0, 1, 2] == [claim.number for claim in claims_[:3]]
    assert claims_[3] is None
    assert not studies[3].is_finished()


def test_live_claim_is_left_alone(open_study, clock):
    """As long as the heartbeat changes, nobody takes the trial, however long it takes."""
    owner, observer = open_study(), open_study(dataclasses.replace(SPEC))
    claim = owner.claim_next("owner", suggest)
    for count in range(50):
        clock.now += 80
        owner.beat(claim, count, (), 80.0 * count, store=owner.store)
        observer.refresh()
        assert not [c for c in [observer._claim_known(observer._unfinished()[0], "observer")] if c]


def watch(observer, clock, seconds):
    """Look at the study now and after every 15 s."""
    observer.refresh()
    for step in [15] * (seconds // 15) + [seconds % 15]:
        clock.now += step
        observer.refresh()


def test_silent_claim_is_taken_over_with_the_same_parameters(open_study, clock):
    """After a TTL without a change the trial goes to the next term, with what the heartbeat said of device time."""
    owner, observer = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    owner.beat(claim, 1, (0.5,), 12.0, store=owner.store)
    watch(observer, clock, 90)
    taken = observer.claim_next("observer", suggest)

    assert (0, 2) == (taken.number, taken.term)
    assert (claim.hyperparameters, claim.seed) == (taken.hyperparameters, taken.seed)
    assert 12.0 == taken.spent_seconds
    owner.refresh()
    assert not owner.owns(claim)
    assert observer.owns(taken)


def test_outage_is_not_held_against_an_owner(open_study, clock):
    """While the store is out of reach no owner can beat: an observer that finds it again gives owners time to."""
    owner, observer = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    owner.beat(claim, 1, (), 12.0, store=owner.store)
    watch(observer, clock, 15)
    clock.now += 300
    observer.refresh()

    assert not observer._liveness.is_stale(0, 1, 90.0)
    watch(observer, clock, 30)
    assert not observer._liveness.is_stale(0, 1, 90.0)
    watch(observer, clock, 15)
    assert observer._liveness.is_stale(0, 1, 90.0)


def test_paused_observer_steals_nothing(open_study, clock):
    """An observer that slept for an hour has seen nothing for an hour: it must look twice."""
    owner, observer = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    observer.refresh()
    clock.now += 3600
    owner.beat(claim, 7, (), 5.0, store=owner.store)
    taken = observer.claim_next("observer", suggest)

    assert 1 == taken.number


def test_restarted_observer_waits_a_whole_ttl(open_study, clock):
    """The first sight of a claim starts its time, however old the claim is."""
    open_study().claim_next("owner", suggest)
    clock.now += 10_000
    observer = open_study()
    watch(observer, clock, 89)

    assert not observer._liveness.is_stale(0, 1, 90.0)
    clock.now += 1
    observer.refresh()
    assert observer._liveness.is_stale(0, 1, 90.0)


def test_released_claim_is_free_at_once(open_study):
    """A trial that was given back needs no waiting, and its owner does not count as dead."""
    owner, observer = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    owner.beat(claim, 1, (), 5.0, store=owner.store, released=True)
    taken = observer.claim_next("observer", suggest)

    assert (0, 2) == (taken.number, taken.term)
    assert 0 == observer._records.trials[0].claim["deaths"]


def test_claim_of_an_owner_that_was_told_to_end_is_free_when_it_must_have_ended(open_study, clock):
    """Others wait for the owner's deadline and no longer, and such an end is no death."""
    owner, observer = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    owner.beat(claim, 1, (), 5.0, store=owner.store, leaving=True)
    watch(observer, clock, 7)
    other = observer.claim_next("observer", suggest)
    watch(observer, clock, 1)
    taken = observer.claim_next("observer", suggest)

    assert 1 == other.number
    assert (0, 2) == (taken.number, taken.term)
    assert 0 == observer._records.trials[0].claim["deaths"]


def test_time_of_an_owner_that_was_told_to_end_counts_until_it_must_have_ended(open_study, clock):
    """The device-minutes do not shrink by 90 s for a worker that is gone after 8."""
    owner, observer = open_study(dataclasses.replace(SPEC, minutes=1)), open_study(dataclasses.replace(SPEC, minutes=1))
    claim = owner.claim_next("owner", suggest)
    owner.beat(claim, 1, (), 5.0, store=owner.store, leaving=True)
    watch(observer, clock, 80)

    assert not observer.is_used_up()


def test_owner_that_finished_and_left_is_not_taken_for_dead(open_study, monkeypatch):
    """A process that posted its result and ended between two looks leaves nothing to take over."""
    monkeypatch.setattr("components.search.study.study.process_identity", lambda: {"pid": 1})
    monkeypatch.setattr("components.search.study.study.is_gone", lambda identity: bool(identity))
    spec = dataclasses.replace(SPEC, trials=1)
    owner, observer = open_study(spec), open_study(spec)
    claim = owner.claim_next("owner", suggest)
    observer.refresh()
    owner.finish(done(claim))

    assert observer.claim_next("observer", suggest) is None
    assert 1 == observer.ledger().trials[0].attempts


def test_first_result_stays(open_study):
    """The second to finish a trial gets the accepted result back and changes nothing."""
    owner, zombie = open_study(), open_study()
    claim = owner.claim_next("owner", suggest)
    zombie.refresh()
    accepted = owner.finish(done(claim, 0.5))

    assert "owner" == accepted.worker
    assert "owner" == zombie.finish(done(claim, 0.5, worker="zombie")).worker
    assert "owner" == owner.ledger().trials[0].worker


def test_unfinished_trials_do_not_start_after_the_minutes(open_study):
    """A trial that was only suggested when the budget ran out is left waiting, and the study is finished."""
    spec = dataclasses.replace(SPEC, minutes=1.0)
    study = open_study(spec)
    claim = study.claim_next("w", suggest)
    study.store.create("trials/00001/params.json", json.dumps({**vars_of(claim), "worker": "w"}).encode())
    study.finish(done(claim, device_seconds=61.0))
    study.refresh()

    assert study.claim_next("w", suggest) is None
    assert study.is_finished()
    assert ["completed", "waiting"] == [t.status for t in study.ledger().trials]


def vars_of(claim):
    return {"hyperparameters": claim.hyperparameters, "seed": 0, "based_on": [], "reused_from": ""}


def test_running_trials_show_their_scores(open_study):
    """What a heartbeat says counts for pruning and for the device-minutes."""
    study = open_study()
    claim = study.claim_next("w", suggest)
    study.beat(claim, 1, (0.25, 0.5), 30.0, store=study.store)
    trial = study.ledger().trials[0]

    assert ("running", (0.25, 0.5), 0.5, 30.0) == (trial.status, trial.scores, trial.score, trial.device_seconds)


def test_study_without_a_score_comes_to_nothing(open_study):
    """The step after the search gets one line with what went wrong."""
    study = open_study(dataclasses.replace(SPEC, trials=1))
    study.finish(done(study.claim_next("w", suggest), None, status="diverged", error="loss became nan"))

    with pytest.raises(DataError, match=r"must have a trial with a score; got 1 diverged.*loss became nan"):
        check_study(study)


def test_study_of_failures_comes_to_nothing(open_study):
    """More failures than allowed are the study's end, even where a trial has a score."""
    study = open_study()
    study.finish(done(study.claim_next("w", suggest)))
    for _ in range(2):
        study.finish(done(study.claim_next("w", suggest), None, status="failed", error="out of memory: full"))

    with pytest.raises(DataError, match="must have at most 30% failed trials; got 2 of 3") as caught:
        check_study(study)
    assert 65 == caught.value.exit_code


def test_running_trials_use_the_budget(open_study, clock):
    """What a running trial has not told yet counts as well, up to the moment somebody wants to start another."""
    study, other = (open_study(dataclasses.replace(SPEC, minutes=1.0)) for _ in range(2))
    claim = study.claim_next("w", suggest)
    study.beat(claim, 1, (), 20.0, store=study.store)
    other.refresh()
    clock.now += 39
    assert 1 == other.claim_next("w", suggest).number
    clock.now += 2

    assert other.claim_next("w", suggest) is None
    assert not other.is_finished()


def test_absent_study_is_told(root):
    """Opening what was never created names the study and its root."""
    with pytest.raises(DataError, match="must exist"):
        Study.open(root, "nothing")


def test_other_schema_is_refused(root):
    """A study of a later version is not guessed at."""
    root.create("s/spec.json", b'{"schema": 3}')

    with pytest.raises(DataError, match="must have schema 1 to 2; got 3"):
        Study.open(root, "s")


def test_damaged_object_is_named(root, open_study):
    """An object that is no JSON is told with its place, not skipped."""
    study = open_study()
    root.create("s/trials/00000/params.json", b"\x00")

    with pytest.raises(DataError, match=r"trials/00000/params\.json must be a JSON object"):
        study.refresh()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("params.json", "{}", "no hyperparameters"),
        ("params.json", "[]", r"\[\] for the whole"),
        ("params.json", '{"hyperparameters": {"rate": []}}', r"\[\] for hyperparameters\.rate"),
        ("claim.0001.json", '{"nonce": "n", "worker": 3}', "3 for worker"),
        ("heartbeat.0001", '{"beat": 1, "epoch": 1, "scores": 7}', "7 for scores"),
        ("result.json", "{}", "no number"),
        (
            "result.json",
            '{"number": 0, "status": "completed", "hyperparameters": {}, "scores": [null]}',
            "None for scores",
        ),
    ],
)
def test_an_object_of_another_shape_is_named(name, content, problem, root, open_study):
    """JSON without what is read of it is told with its place, as damaged JSON is."""
    study = open_study()
    if name != "params.json":
        study.claim_next("w", suggest)
        study.store.delete("trials/00000/claim.0001.json")
    root.create(f"s/trials/00000/{name}", content.encode())

    with pytest.raises(DataError, match=rf"trials/00000/{name} must be a JSON object of a study; got {problem}"):
        Study.open(root, "s").ledger()


@pytest.mark.parametrize(
    "space", [[{}], [{"name": "x", "only_if": None, "choices": []}], [{"only_if": 1, "name": "x"}]]
)
def test_a_spec_without_a_search_space_is_named(space, root, open_study):
    """Rows of another shape are found when the study is opened, not by the first table that reads them."""
    store = open_study().store
    store.write("spec.json", json.dumps(json.loads(store.read("spec.json")) | {"space": space}).encode())

    with pytest.raises(DataError, match=r"spec\.json must have a search space; got"):
        Study.open(root, "s")


@pytest.mark.parametrize("name", ["spec.json", "reused.json"])
def test_a_spec_of_another_shape_is_named(name, root, open_study):
    """What belongs to the whole study is checked like its trials."""
    study = open_study(dataclasses.replace(SPEC, warm_start=True))
    study.store.write(name, b'{"schema": 2, "told": [{}], "approach": 3}')

    with pytest.raises(
        DataError, match=rf"{name} must be a JSON object of a study; got (3 for approach|no told.0.number)"
    ):
        Study.open(root, "s").ledger()


def test_every_field_of_the_spec_counts(open_study):
    """Whatever differs is listed, and nothing is mixed."""
    open_study()
    with pytest.raises(ParameterError, match=r"epochs was 1 and is 2, minutes was 60 and is 5"):
        open_study(dataclasses.replace(SPEC, epochs=2, minutes=5))


def test_liveness_needs_looks_in_between():
    """One look, however late it ends, tells nothing, and no pause between two looks more than its share."""
    liveness = Liveness(30.0)
    liveness.observe(0, 1, None, 0.0, 1000.0)
    assert not liveness.is_stale(0, 1, 90.0)
    liveness.observe(0, 1, None, 1030.0, 5000.0)
    liveness.observe(0, 1, None, 1060.0, 1060.0)
    assert not liveness.is_stale(0, 1, 90.0)
    assert 70.0 == liveness.silent_seconds(0, 1, 1070.0)
    liveness.observe(0, 1, None, 9000.0, 9000.0)
    assert liveness.is_stale(0, 1, 90.0)
    liveness.observe(0, 1, 1, 9001.0, 9001.0)
    assert not liveness.is_stale(0, 1, 90.0)


def test_processes_of_this_machine_are_known():
    """The own process lives; one with another start time or number is gone; another machine's tells nothing."""
    own = process_identity()

    assert not is_gone(own)
    assert is_gone({**own, "started": "0"})
    assert is_gone({**own, "pid": 2**22 + 1})
    assert not is_gone({**own, "host": "elsewhere", "pid": 2**22 + 1})
    assert not is_gone({**own, "pids": "pid:[0]", "pid": 2**22 + 1})
    assert not is_gone({})


def test_identity_is_empty_where_the_system_does_not_say(monkeypatch):
    """Without /proc nothing is claimed about processes."""
    claims._machine.cache_clear()
    monkeypatch.setattr(claims.Path, "read_text", lambda self: (_ for _ in ()).throw(OSError()))  # noqa: ARG005

    assert {} == process_identity()
    assert not is_gone({"host": "h", "boot": "b", "pids": "p", "pid": 1, "started": "1"})
    monkeypatch.undo()
    claims._machine.cache_clear()
