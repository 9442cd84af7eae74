"""Outages of the store at every point of a worker's life: it waits, loses nothing, and goes on when the store is back."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.search.study.claims import Timing
from tests.fakes.faults import Fault
from tests.fakes.gcs import FakeGcs
from tests.search.conftest import GcsPlace, S3Place
from tests.search.processes import finish, lines, problems, start_worker

POINTS = {
    "starting": "",
    "claiming": "trials/00001/claim",
    "training": "trials/00001/heartbeat",
    "saving a checkpoint": "trials/00001/checkpoints/",
    "posting": "trials/00001/result.json",
    "waiting for others": "",
}
"""What the worker writes when the store goes away."""

SCALED = {
    "patience": {"deadline": 40.0, "beats": 1.0, "call": 0.5, "pause": 0.4},
    "timing": {"beat_seconds": 0.2, "ttl_seconds": 1.2, "poll_seconds": 0.1},
    "epoch_seconds": 0.4,
    "settings": {"trials": 3, "epochs": 3},
}
REAL = {"timing": dataclasses.asdict(Timing()), "epoch_seconds": 20.0, "settings": {"trials": 3, "epochs": 3}}


class Outage:
    """One study on a server of its own, which is away for a while from a point of its worker's life on."""

    def __init__(self, scheme, state, point, seconds, options, tmp_path):
        from tests.fakes.s3 import FakeS3

        self.scheme, self.state, self.point, self.seconds = scheme, state, point, seconds
        self.name = f"{scheme}-{state}-{point}-{seconds:g}".replace(" ", "-")
        self.options, self.log = options, tmp_path / self.name
        self.server = (FakeGcs if scheme == "gs" else FakeS3)("bucket")
        self.times = []
        self.began = self.back = None
        self._take = self.server.take_fault
        self.server.take_fault = self._watch

    def __enter__(self):
        self.server.__enter__()
        self.place = (GcsPlace if self.scheme == "gs" else S3Place)(self.server, self.name)
        return self

    def __exit__(self, *exc_info):
        self.server.__exit__(*exc_info)

    def _watch(self, method, path):
        """Begin where the point is reached; note when requests come."""
        self.times.append(time.monotonic())
        mark = POINTS[self.point]
        if mark and self.began is None and method in ("POST", "PUT") and mark in path.replace("%2F", "/"):
            self._begin()
            return Fault("drop")
        return self._take(method, path)

    def _begin(self):
        self.began = time.monotonic()
        threading.Thread(target=self._last, daemon=True).start()

    def _last(self):
        self.server.go(self.state)
        time.sleep(self.seconds)
        self.server.go("on")
        self.back = time.monotonic()

    def start(self):
        """Start the workers; one is enough except where one waits for the other."""
        options = {**self.options, "environment": self.place.environment, "knows_processes": False}
        if self.point == "starting":
            self._begin()
            time.sleep(0.3)
        if self.point == "waiting for others":
            options["settings"] = {**options["settings"], "trials": 1, "epochs": 6 + int(self.seconds / 20)}
        self.workers = [start_worker(self.place.uri, self.log, name="w0", **options)]
        if self.point == "waiting for others":
            threading.Thread(target=self._start_another, args=[options], daemon=True).start()

    def _start_another(self, options):
        while len(lines(self.log / "epochs")) < 1:
            time.sleep(0.05)
        self.workers.append(start_worker(self.place.uri, self.log, name="w1", **options))
        time.sleep(3 * self.options["epoch_seconds"] / 4 + 1)
        self._begin()

    def end(self):
        """Return what went wrong, after the workers left, and after how many seconds they found the store again."""
        limit = 20 * self.seconds + 300
        while self.back is None:
            time.sleep(0.05)
        trials = 1 if self.point == "waiting for others" else self.options["settings"]["trials"]
        codes = [finish(worker, limit) for worker in self.workers]
        again = [t for t in self.times if t >= self.back]
        found = [] if set(codes) == {0} else [f"exit codes {codes}: {lines(self.log / 'errors')}"]
        found += problems(self.place.objects(), self.log, trials=trials, kills=0, expected={})
        return [f"{self.name}: {text}" for text in found], (again[0] - self.back if again else None)


def run(outages):
    """Run all outages at once; return what went wrong and the seconds by name."""
    wrong, seconds = [], {}
    entered = []
    try:
        entered += [outage.__enter__() for outage in outages]
        for outage in outages:
            outage.start()
        for outage in outages:
            found, seconds[outage.name] = outage.end()
            wrong += found
    finally:
        for outage in entered:
            outage.__exit__()
    return wrong, seconds


@pytest.mark.parametrize(("scheme", "state"), [("gs", "refuse"), ("s3", "silent")])
def test_short_outages(scheme, state, tmp_path):
    """With every figure scaled down, an outage longer than the TTL costs no worker, no trial and no result."""
    wrong, _ = run([Outage(scheme, state, point, 2.0, SCALED, tmp_path) for point in POINTS])

    assert [] == wrong


def test_outage_beyond_the_deadline(tmp_path):
    """A worker that waited for the whole deadline leaves with 69 and says so; another start goes on where it was."""
    options = {**SCALED, "patience": {**SCALED["patience"], "deadline": 1.0}}
    beyond(Outage("gs", "refuse", "posting", 6.0, options, tmp_path), "within 1 s")


def beyond(outage, text):
    """Let a worker meet an outage that it does not outlast, and another one finish the study."""
    with outage:
        outage.start()
        assert 69 == finish(outage.workers[0], 20 * outage.seconds)
        (error,) = lines(outage.log / "errors")
        assert text in error["error"]
        while outage.back is None:
            time.sleep(0.05)
        outage.start()
        wrong, _ = outage.end()

    # The trial whose result could not be posted is trained again from its last checkpoint.
    assert [] == [w for w in wrong if " I2 " not in w]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [100.0, 300.0])
def test_real_outages(seconds, tmp_path, capsys):
    """With the real timing, workers find the store within 20 s of its return, wherever the outage met them."""
    kinds = [("gs", "refuse"), ("gs", "silent"), ("s3", "refuse"), ("s3", "silent")]
    wrong, found = run([Outage(*kind, point, seconds, REAL, tmp_path) for kind in kinds for point in POINTS])
    with capsys.disabled():
        print("\n" + "\n".join(f"{name}: {value:.1f} s" for name, value in sorted(found.items())))  # noqa: T201

    assert [] == wrong
    assert max(found.values()) <= 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_outages_beyond_the_deadline(tmp_path):
    """700 s are longer than the real deadline of 600 s, at every point where a worker needs an answer to go on."""
    cases = [
        ("gs", "refuse", "posting"),
        ("s3", "silent", "posting"),
        ("gs", "silent", "claiming"),
        ("s3", "refuse", "claiming"),
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        runs = [pool.submit(beyond, Outage(*case, 700.0, REAL, tmp_path), "within 600 s") for case in cases]
        for one in runs:
            one.result()
