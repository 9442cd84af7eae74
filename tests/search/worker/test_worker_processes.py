"""Workers as processes: they share a study, survive each other's deaths, and leave in time when they are told to."""

import os
import signal
import time

import pytest

from components.search.study.study import Study
from components.stores import open_store
from tests.fakes.gcs import Fault
from tests.search import toy
from tests.search.processes import finish, lines, problems, run_worker, start_worker


def wait_for(condition, seconds=60.0):
    """Wait until a condition holds; return how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "condition must become true in time"
        time.sleep(0.005)
    return time.monotonic() - start


def results(place):
    """The accepted results of a place by number."""
    return {t.number: t for t in Study.open(open_store(place.uri), "toy").ledger().trials if t.is_finished}


@pytest.fixture
def place(make_place):
    return make_place("local")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def expected(trials):
    """Hyperparameters by number that the toy sampler gives."""
    return {number: toy.RandomSampler("", "", None, 0).suggest(number, ()) for number in range(trials)}


@pytest.mark.parametrize("kind", ["local", "gcs"])
def test_four_workers_do_what_one_does(make_place, kind, tmp_path):
    """The same seed gives the same trials and the same best, whatever the number of workers."""
    ledgers = []
    for num_workers in (1, 4):
        place, log = make_place(kind), tmp_path / str(num_workers)
        options = {"settings": {"trials": 12}, "environment": place.environment, "epoch_seconds": 0.01}
        workers = [start_worker(place.uri, log, name=f"w{n}", **options) for n in range(num_workers)]
        assert {0} == {finish(worker) for worker in workers}
        assert [] == problems(place.objects(), log, trials=12, kills=0, expected=expected(12))
        ledgers.append({line["number"]: line["score"] for line in lines(log / "oracle")})

    assert ledgers[0] == ledgers[1]


def test_minutes_are_shared(place, log):
    """Four workers together overshoot the device-minutes by an epoch of each running trial, not by the trials of 6 s."""
    budget = 2.0
    options = {"settings": {"trials": 500, "minutes": budget / 60, "epochs": 60}, "epoch_seconds": 0.1}
    options["timing"] = {"ttl_seconds": 20.0}
    workers = [start_worker(place.uri, log, **options) for _ in range(4)]
    assert {0} == {finish(worker) for worker in workers}
    trials = results(place).values()

    assert budget <= sum(t.device_seconds for t in trials) <= budget + 4 * 1.5, "epochs take longer on a busy machine"
    assert all(t.out_of_budget for t in trials)


def test_trial_that_kills_its_workers_is_given_up(place, log):
    """After three deaths a trial is recorded as failed; the others are not affected."""
    options = {"settings": {"trials": 4}, "faults": {1: "kill"}}
    codes = [run_worker(place.uri, log, **options) for _ in range(4)]

    assert [-9, -9, -9, 0] == codes
    trials = results(place)
    assert ("failed", "worker died 3 times") == (trials[1].status, trials[1].error)
    assert [0, 2, 3] == [n for n, t in trials.items() if t.status == "completed"]


def test_terminated_worker_saves_and_gives_the_trial_back(place, log, tmp_path):
    """SIGTERM: the epoch ends, a checkpoint is written, the process leaves with 143, and nobody waits for its claim."""
    gate = tmp_path / "gate"
    options = {
        "settings": {"trials": 1},
        "knows_processes": False,
        "timing": {"ttl_seconds": 60.0, "checkpoint_seconds": 60.0},
    }
    worker = start_worker(place.uri, log, faults={0: f"wait:{gate}"}, **options)
    wait_for((log / "fits").exists)
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.1)
    start = time.monotonic()
    gate.touch()
    assert 143 == finish(worker)
    assert time.monotonic() - start < 10
    assert [key for key in place.objects() if key.endswith("0001-000001/manifest.json")]

    start = time.monotonic()
    assert 0 == run_worker(place.uri, log, **options)
    assert time.monotonic() - start < 10
    assert [1, 2, 3] == [line["epoch"] for line in lines(log / "epochs")]
    assert 2 == results(place)[0].attempts


def test_pre_empted_trial_is_not_given_up(place, log, tmp_path):
    """Workers that were told to leave do not count as deaths, however often it happens."""
    options = {"settings": {"trials": 1, "epochs": 9}}
    for number in range(4):
        gate = tmp_path / f"gate{number}"
        worker = start_worker(place.uri, log, faults={0: f"wait:{gate}"}, **options)
        wait_for(lambda number=number: len(lines(log / "fits")) > number)
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.05)
        gate.touch()
        assert 143 == finish(worker)
    assert 0 == run_worker(place.uri, log, **options)

    assert ("completed", 5) == (results(place)[0].status, results(place)[0].attempts)


def test_worker_that_is_killed_right_after_sigterm_said_that_it_leaves(place, log, tmp_path):
    """Argo kills a step half a second after SIGTERM: the next worker waits for the owner's deadline only, and nobody died."""
    options = {
        "settings": {"trials": 1, "epochs": 2},
        "knows_processes": False,
        "timing": {"ttl_seconds": 600.0, "beat_seconds": 5.0, "term_seconds": 2.0},
    }
    for number in range(4):
        stuck = {0: f"wait:{tmp_path / f'never{number}'}"}
        worker = start_worker(place.uri, log, faults=stuck, **options)
        wait_for(lambda number=number: len(lines(log / "fits")) > number)
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.5)
        worker.kill()
        assert finish(worker) in (-signal.SIGKILL, 143)
    start = time.monotonic()
    assert 0 == run_worker(place.uri, log, **options)

    assert time.monotonic() - start < 60
    assert ("completed", 5) == (results(place)[0].status, results(place)[0].attempts)


def test_busy_worker_is_gone_in_time(place, log, tmp_path):
    """SIGTERM in the middle of an endless epoch: the process leaves at its deadline all the same."""
    worker = start_worker(place.uri, log, faults={0: f"wait:{tmp_path / 'never'}"}, timing={"term_seconds": 0.3})
    wait_for((log / "fits").exists)
    start = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)

    assert 143 == finish(worker)
    assert time.monotonic() - start < 5


def test_waiting_worker_leaves_at_once(place, log, tmp_path):
    """SIGTERM while others finish the last trials ends a worker without delay."""
    gate = tmp_path / "gate"
    options = {"settings": {"trials": 1}}
    busy = start_worker(place.uri, log, faults={0: f"wait:{gate}"}, **options)
    wait_for((log / "fits").exists)
    idle = start_worker(place.uri, tmp_path / "idle", **options)
    wait_for((tmp_path / "idle" / "log.txt").exists)
    time.sleep(0.3)
    os.kill(idle.pid, signal.SIGTERM)

    assert 143 == finish(idle)
    gate.touch()
    assert 0 == finish(busy)


@pytest.mark.parametrize("kind", ["local", "gcs"])
def test_dead_worker_is_replaced_within_the_ttl(make_place, kind, log, tmp_path):
    """A survivor takes the trial over once the heartbeat has not changed for a TTL, and not before."""
    place, gate = make_place(kind), tmp_path / "gate"
    options = {
        "settings": {"trials": 2},
        "knows_processes": False,
        "environment": place.environment,
        "timing": {"ttl_seconds": 1.0},
    }
    victim = start_worker(place.uri, log, faults={0: f"wait:{gate}"}, **options)
    wait_for((log / "fits").exists)
    survivor = start_worker(place.uri, tmp_path / "survivor", **options)
    wait_for(lambda: len(lines(tmp_path / "survivor" / "oracle")) == 1)
    time.sleep(0.5)
    assert 1 == len(lines(tmp_path / "survivor" / "fits"))
    os.kill(victim.pid, signal.SIGKILL)
    killed = time.monotonic()
    assert -9 == finish(victim)
    wait_for(lambda: len(lines(tmp_path / "survivor" / "fits")) == 2)
    assert time.monotonic() - killed < 1.0 + 5
    assert 0 == finish(survivor)
    assert {1, 2} == {line["number"] + 1 for line in lines(tmp_path / "survivor" / "oracle")}


def test_own_machine_s_dead_are_known_at_once(place, log):
    """A run that is killed and started again on one machine does not wait for its own dead workers."""
    options = {"settings": {"trials": 1}, "timing": {"ttl_seconds": 60.0}}
    assert -9 == run_worker(place.uri, log, environment={"FAIL_AT": "mid-epoch:2"}, **options)
    start = time.monotonic()
    assert 0 == run_worker(place.uri, log, **options)
    assert time.monotonic() - start < 20


def paused_and_replaced(place, log, tmp_path, ttl_seconds=0.5):
    """Pause a worker in its trial until another has done it, then wake it; return both exit codes."""
    gate = tmp_path / "gate"
    options = {
        "settings": {"trials": 1, "epochs": 1},
        "knows_processes": False,
        "timing": {"ttl_seconds": ttl_seconds},
        "environment": place.environment,
    }
    paused = start_worker(place.uri, log, faults={0: f"wait:{gate}"}, name="zombie", **options)
    wait_for((log / "fits").exists)
    os.kill(paused.pid, signal.SIGSTOP)
    successor = start_worker(place.uri, tmp_path / "successor", name="successor", **options)
    code = finish(successor)
    gate.touch()
    os.kill(paused.pid, signal.SIGCONT)
    return finish(paused), code


def test_zombie_finds_its_trial_done(place, log, tmp_path):
    """A worker paused for longer than the TTL wakes, sees that its trial was done by another, and ends well."""
    assert (0, 0) == paused_and_replaced(place, log, tmp_path)
    assert [("successor", 2)] == [(t.worker, t.attempts) for t in results(place).values()]


@pytest.mark.slow
def test_hundred_zombies(make_place, tmp_path):
    """100 rounds of the same on both stores: the first result stays, and every zombie exits with 0."""
    for number in range(100):
        place = make_place("local" if number % 2 else "gcs")
        directory = tmp_path / str(number)
        directory.mkdir()
        assert (0, 0) == paused_and_replaced(place, directory / "log", directory, ttl_seconds=0.4)
        result = [key for key in place.objects() if key.endswith("result.json")]
        assert ["trials/00000/result.json"] == result


def test_wall_clocks_do_not_matter(place, tmp_path):
    """Workers whose clocks are days apart steal no live trial and leave none behind."""
    options = {"settings": {"trials": 10}, "epoch_seconds": 0.05, "knows_processes": False}
    offsets = [-86400, -600, 0, 600, 86400]
    timing = {"ttl_seconds": 5.0}
    workers = [
        start_worker(place.uri, tmp_path / str(o), name=f"w{o}", wall_offset=o, timing=timing, **options)
        for o in offsets
    ]
    assert {0} == {finish(worker) for worker in workers}
    trials = results(place)

    assert list(range(10)) == sorted(trials)
    assert {1} == {t.attempts for t in trials.values()}
    assert all(0 <= t.wall_seconds < 60 and 0 <= t.device_seconds < 60 for t in trials.values())


def test_failing_heartbeats_do_not_stop_the_training(make_place, log):
    """Where only heartbeats fail, the trial is finished and its result posted."""
    place = make_place("gcs")
    fault = Fault("status", status=500, method="POST", contains=f"{place.prefix}/toy/trials/00000/heartbeat", times=-1)
    place.server.fail(fault)
    try:
        options = {"settings": {"trials": 1}, "environment": place.environment, "epoch_seconds": 0.1}
        assert 0 == run_worker(place.uri, log, timing={"ttl_seconds": 60.0}, **options)
    finally:
        place.server.heal()

    assert [] == problems(place.objects(), log, trials=1, kills=0, expected=expected(1))


def test_search_survives_a_faulty_store(make_place, log):
    """With every tenth request failing, before or after it took effect, four workers lose and repeat nothing."""
    place = make_place("gcs")
    place.server.fail_randomly(
        0.1, 7, [Fault("status"), Fault("status", when="after"), Fault("drop"), Fault("drop", when="after")]
    )
    try:
        options = {"settings": {"trials": 8}, "environment": place.environment, "timing": {"ttl_seconds": 30.0}}
        workers = [start_worker(place.uri, log, **options) for _ in range(4)]
        assert {0} == {finish(worker) for worker in workers}
    finally:
        place.server.heal()

    assert [] == problems(place.objects(), log, trials=8, kills=0, expected=expected(8))
