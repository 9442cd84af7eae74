"""Slow proofs: 200 kills at random moments, and how the search scales."""

import dataclasses
import os
import random
import signal
import statistics
import time

import pytest

from components.search.study.claims import Timing
from tests.search import toy
from tests.search.processes import finish, lines, problems, run_worker, start_worker

pytestmark = pytest.mark.slow


def expected(trials):
    """Hyperparameters by number that the toy sampler gives."""
    return {number: toy.RandomSampler("", "", None, 0).suggest(number, ()) for number in range(trials)}


def show(capsys, text):
    """Print a measured figure past pytest's capture."""
    with capsys.disabled():
        print(f"\n{text}", end="")  # noqa: T201


@pytest.mark.parametrize("study", range(20))
@pytest.mark.timeout(300)
def test_ten_random_kills(study, make_place, tmp_path):
    """A study of 30 trials and 4 workers loses nothing to 10 kills, every fifth of which hits all workers at once."""
    generator, place, log = random.Random(study), make_place("gcs" if study % 4 == 3 else "local"), tmp_path / "log"
    options = {
        "settings": {"trials": 30},
        "environment": place.environment,
        "epoch_seconds": 0.05,
        "timing": {"ttl_seconds": 2.0, "beat_seconds": 0.2},
        "knows_processes": bool(study % 2),
    }
    workers = [start_worker(place.uri, log, **options) for _ in range(4)]
    killed, deaths = 0, 0
    while killed < 10:
        time.sleep(generator.uniform(0.05, 0.5))
        victims = range(4) if killed % 5 == 4 else [generator.randrange(4)]
        killed += 1
        for index in victims:
            if workers[index].is_alive():
                os.kill(workers[index].pid, signal.SIGKILL)
                deaths += 1
            assert finish(workers[index]) in (0, -9)
            workers[index] = start_worker(place.uri, log, **options)
    assert {0} == {finish(worker, 120) for worker in workers}
    place.collect()

    assert [] == problems(place.objects(), log, trials=30, kills=deaths, expected=expected(30))


@pytest.mark.timeout(600)
def test_fifty_terminations(make_place, tmp_path):
    """A worker told to leave at a random moment is gone within 10 s with 143, and the study becomes the same."""
    generator, place, log = random.Random(0), make_place("local"), tmp_path / "log"
    options = {"settings": {"trials": 40, "epochs": 5}, "epoch_seconds": 0.02, "knows_processes": False}
    options["timing"] = {"ttl_seconds": 30.0}
    codes = []
    while len(codes) < 50:
        worker = start_worker(place.uri, log, **options)
        time.sleep(generator.uniform(0.02, 0.3))
        start = time.monotonic()
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGTERM)
        codes.append(finish(worker))
        assert time.monotonic() - start < 10
    assert 0 == run_worker(place.uri, log, **options)
    place.collect()

    # -15: the signal came before the worker was set up to catch it, or after it had finished.
    assert set(codes) <= {0, 143, -15}
    assert 143 in codes
    assert [] == problems(place.objects(), log, trials=40, kills=50, expected=expected(40))
    epochs = [(line["number"], line["epoch"]) for line in lines(log / "epochs")]
    assert len(epochs) == len(set(epochs))


@pytest.mark.timeout(600)
def test_workers_scale(make_place, tmp_path, capsys):
    """With an objective of 0.5 s, up to 8 workers finish at least 0.9 times as many trials a second as as many times one."""
    rates = {}
    for num_workers in (1, 2, 4, 8, 16):
        place, log = make_place("local"), tmp_path / str(num_workers)
        options = {
            "settings": {"trials": 6 * num_workers, "epochs": 1},
            "epoch_seconds": 0.5,
            "timing": dataclasses.asdict(Timing()),
        }
        workers = [start_worker(place.uri, log, **options) for _ in range(num_workers)]
        assert {0} == {finish(worker, 120) for worker in workers}
        ends = sorted(path.stat().st_mtime for path in place.results())
        # From the first result to the last: what starting processes takes is not the protocol's.
        rates[num_workers] = (len(ends) - num_workers) / (ends[-1] - ends[num_workers - 1])
        assert 6 * num_workers == len(lines(log / "fits"))
    shares = {n: rate / n / rates[1] for n, rate in rates.items()}
    show(capsys, ", ".join(f"{n} workers {rates[n]:.2f} trials/s, {shares[n]:.3f} of linear" for n in rates))
    assert all(shares[n] >= 0.9 for n in (2, 4, 8))


def test_store_takes_under_two_percent(make_place, tmp_path, capsys):
    """At 200 ms a call, a worker on trials of 30 s waits for the store for less than 2 % of the time."""
    place, log = make_place("gcs"), tmp_path / "log"
    place.server.delay_seconds = 0.2
    try:
        options = {
            "settings": {"trials": 3, "epochs": 20},
            "environment": place.environment,
            "epoch_seconds": 1.5,
            "timing": dataclasses.asdict(Timing()),
        }
        worker = start_worker(place.uri, log, **options)
        assert 0 == finish(worker, 300)
    finally:
        place.server.delay_seconds = 0.0
    started = [line["time"] for line in lines(log / "fits")]
    ended = [line["time"] for line in lines(log / "epochs") if line["epoch"] == 20]
    between = [begin - end for begin, end in zip(started[1:], ended, strict=False)]
    share = statistics.median(between) / 30
    show(capsys, f"between two trials {1000 * statistics.median(between):.0f} ms of 30 s, {100 * share:.2f} %")
    assert share < 0.02
