"""Histories of every status with no, one and many scores, in every order: exhaustive while short, random while longer."""

import itertools

import numpy as np

from components.models.space import Parameter, Space
from components.search.trial import Trial

SPACE = Space(
    (
        Parameter(name="rate", low=1e-3, high=1e-1, log=True, default=1e-2),
        Parameter(name="units", low=16, high=128, step=16, default=32),
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="SGD"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
    )
)
MANY = 4
KINDS = (
    ("waiting", 0),
    *itertools.product(("running", "diverged", "failed"), (0, 1, MANY)),
    *itertools.product(("completed", "pruned"), (1, MANY)),
    # A result of a store that somebody edited, or of another version.
    ("completed", 0),
    ("pruned", 0),
)
"""Each status with the numbers of scores it can have."""


def trial(number, kind, rng, *, reused=False):
    """A trial of a kind with random hyperparameters and scores."""
    status, num_scores = kind
    scores = tuple(round(float(s), 4) for s in rng.uniform(0.1, 0.9, num_scores))
    has_score = status in ("completed", "pruned", "running") and scores
    return Trial(
        number=number,
        status=status,
        hyperparameters=SPACE.sample(rng),
        score=max(scores) if has_score else None,
        scores=scores,
        epochs=num_scores,
        device_seconds=float(num_scores),
        error="broken" if status in ("failed", "diverged") else "",
        reused_from=f"earlier/{number}" if reused else "",
    )


def every_short_one():
    """Yield all histories of up to two trials, and all of three in which one of each sort meets."""
    yield ()
    for length in (1, 2):
        yield from itertools.product(KINDS, repeat=length)
    sorts = [("completed", MANY), ("pruned", 1), ("failed", 0), ("diverged", 0), ("running", 0), ("running", 1)]
    yield from itertools.permutations(sorts, 3)


def random_ones(count, *, longest=16):
    """Yield (trials, reused) for seeds 0 to `count` - 1; a failing one is found again by its seed."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        kinds = [KINDS[i] for i in rng.integers(len(KINDS), size=int(rng.integers(longest + 1)))]
        trials = [trial(number, kind, rng) for number, kind in enumerate(kinds)]
        finished = [k for k in KINDS if k[0] in ("completed", "pruned", "diverged")]
        picks = rng.integers(len(finished), size=int(rng.integers(9)) if seed % 2 else 0)
        reused = [trial(number, finished[i], rng, reused=True) for number, i in enumerate(picks)]
        order = rng.permutation(len(trials))
        yield [trials[i] for i in order], reused


def assert_suggestions(make, *, short, count, longest=16):
    """Ask a sampler after every history for a valid suggestion, the same in any order of the trials.

    Args:
        make: Gives the sampler.
        short: Whether after all short histories as well.
        count: Of random histories.
        longest: Of those.
    """
    rng = np.random.default_rng(0)
    for kinds in every_short_one() if short else ():
        trials = [trial(n, kind, rng) for n, kind in enumerate(kinds)]
        assert [] == SPACE.problems(make().suggest(len(trials), trials)), trials
    for trials, reused in random_ones(count, longest=longest):
        suggested = make().suggest(len(trials), trials, reused)

        assert [] == SPACE.problems(suggested), (trials, reused)
        assert suggested == make().suggest(len(trials), trials[::-1], reused[::-1]), (trials, reused)
