"""What the protocol's model promises holds for the real study with a real sampler, in random interleavings.

Four workers of one process take turns at random: they claim, beat, finish, die without a word, give back, break their
device, or pause so long that another takes over and then finish all the same. A failing run is found again by its seed.
"""

import numpy as np
import pytest

from components.search.samplers.choice import make_sampler
from components.search.study.claims import Timing
from components.search.study.spec import StudySpec
from components.search.study.study import Study
from components.search.trial import Trial
from components.stores import open_store
from tests.search import toy

TRIALS = 10


class Worker:
    """One worker with a view of the study of its own; `claim` is what it trains, `late` what it will post as a zombie."""

    def __init__(self, name, root, spec, clock, world):
        self.name, self.root, self.spec, self.clock, self.world = name, root, spec, clock, world
        self.start()

    def start(self):
        """Begin without memory."""
        self.study = Study.create_or_open(self.root, "s", self.spec, timing=Timing(clock=self.clock))
        self.claim, self.late, self.beats = None, [], 0

    def suggest(self, number, ledger):
        values = make_sampler("resnet18", "gp", toy.SPACE, 0).suggest(number, ledger.trials)
        assert [] == toy.SPACE.problems(values)
        return values, ""

    def seek(self):
        """Claim what is to be done."""
        self.study.refresh()
        self.claim = self.study.claim_next(self.name, self.suggest)
        if self.claim is not None:
            key = (self.claim.number, self.claim.term)
            assert key not in self.world["owners"], "a term has two owners"
            self.world["owners"][key] = self.name
            known = self.world["params"].setdefault(self.claim.number, (self.claim.hyperparameters, self.claim.seed))
            assert known == (self.claim.hyperparameters, self.claim.seed)
            self.beat()

    def beat(self, released=False, leaving=False):
        """Show the others that it lives."""
        self.beats += 1
        self.study.beat(self.claim, self.beats, (), 1.0, store=self.study.store, released=released, leaving=leaving)

    def post(self, claim):
        """Post a result and learn which was accepted."""
        score = toy.score(claim.hyperparameters, 3)
        failed = bool(claim.number % 4 == 3)
        trial = Trial(
            number=claim.number,
            status="failed" if failed else "completed",
            hyperparameters=claim.hyperparameters,
            seed=claim.seed,
            score=None if failed else score,
            scores=() if failed else (score / 2, score),
            worker=f"{self.name}/{claim.term}",
            based_on=claim.based_on,
        )
        self.study.refresh()
        accepted = self.study.finish(trial)
        assert self.world["results"].setdefault(claim.number, accepted) == accepted, "an acknowledged result was lost"

    def act(self, rng):
        """Do one of the things that a worker may do where it stands."""
        if self.late and rng.random() < 0.3:
            self.post(self.late.pop())
        elif self.claim is None:
            self.seek()
        else:
            match rng.choice(
                ["finish", "beat", "die", "leave", "give back", "break", "pause"],
                p=[0.4, 0.15, 0.1, 0.05, 0.1, 0.1, 0.1],
            ):
                case "finish":
                    self.post(self.claim)
                case "beat":
                    return self.beat()
                case "die":
                    return self.start()
                case "leave":
                    self.beat(leaving=True)
                    return self.start()
                case "give back":
                    self.beat(released=True)
                case "break":
                    self.study.note_fault(self.claim, RuntimeError("CUDA error: unspecified launch failure"))
                    self.beat(released=True)
                case "pause":
                    self.late.append(self.claim)
            self.claim = None
        return None


@pytest.mark.parametrize("seed", range(6))
def test_random_interleavings_keep_the_promises(seed, tmp_path, monkeypatch):
    """No term has two owners, no acknowledged result is lost, no trial is tried with two settings, and the study ends."""
    monkeypatch.setattr("components.search.study.study.process_identity", dict)
    rng, now, root = np.random.default_rng(seed), [0.0], open_store(str(tmp_path))
    spec = StudySpec(
        approach="resnet18",
        dataset="toy",
        data_hash="0",
        space=toy.SPACE.to_json(),
        algorithm="gp",
        trials=TRIALS,
        minutes=1e6,
        epochs=3,
        max_failed_fraction=1.0,
    )
    world = {"owners": {}, "params": {}, "results": {}}
    workers = [Worker(f"w{n}", root, spec, lambda: now[0], world) for n in range(4)]
    for _ in range(2000):
        now[0] += float(rng.choice([1.0, 10.0, 50.0]))
        workers[rng.integers(4)].act(rng)
        if len(world["results"]) == TRIALS and workers[0].study.is_finished():
            break
    ledger = Study.open(root, "s").ledger()

    assert list(range(TRIALS)) == [t.number for t in ledger.trials]
    assert all(t.is_finished for t in ledger.trials)
    assert {n: t.worker for n, t in world["results"].items()} == {
        t.number: t.worker for t in ledger.trials if t.number in world["results"]
    }
    given_up = [t for t in ledger.trials if t.number not in world["results"]]
    assert all("times" in t.error for t in given_up), "only a trial that outlived nobody may end without a result"
    assert all(t.hyperparameters == world["params"][t.number][0] for t in ledger.trials)
