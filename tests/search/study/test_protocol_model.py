"""Every interleaving of two workers on one trial, with crashes, pauses and lost acknowledgements, keeps the invariants.

The model has the protocol's atomic steps and nothing else: a worker reads the trial, creates the next claim, trains,
creates the result, and reads back which one was accepted. At each step the worker may crash (and be replaced by one
without memory), pause (so that its heartbeat goes stale), lose the acknowledgement of a create, or give the trial back
because its device broke.
"""

from collections import deque
from dataclasses import dataclass, field, replace

import pytest

CRASHES, PAUSES, LOST, BROKEN = 2, 1, 1, 1
MAX_EPOCH = 3


@dataclass(frozen=True)
class Worker:
    """Where a worker stands: `idle`, `claiming` (having seen `seen` terms), `training`, `posting`, `done`."""

    step: str = "idle"
    seen: int = 0
    term: int = 0
    nonce: int = 0
    paused: bool = False
    retrying: bool = False
    believes: int = 0


@dataclass(frozen=True)
class World:
    """The store and the two workers.

    Attributes:
        claims: Nonce of each term's claim, from term 1.
        result: Nonce of the accepted result; 0 for none.
        posted: Nonces of results that a worker was told are accepted.
        alive: Nonces whose owners still beat.
        overwritten: True once an accepted result was replaced.
        owners: (term, nonce) of every claim a worker took for its own.
        repeats: Trainings begun.
        budget: Crashes, pauses, lost acknowledgements and broken devices still to come.
    """

    workers: tuple[Worker, Worker] = (Worker(), Worker())
    claims: tuple[int, ...] = ()
    result: int = 0
    posted: frozenset = frozenset()
    alive: frozenset = frozenset()
    overwritten: bool = False
    owners: frozenset = frozenset()
    budget: tuple[int, int, int, int] = (CRASHES, PAUSES, LOST, BROKEN)
    next_nonce: int = 1


@dataclass(frozen=True)
class Rules:
    """The protocol, and the mistakes one could make in it."""

    result_is_create_only: bool = True
    claim_is_create_only: bool = True
    lost_acknowledgement_is_recognised: bool = True
    accepted_result_is_read_back: bool = True


def steps(world: World, rules: Rules):
    """Yield every world that can follow."""
    crashes, pauses, lost, broken = world.budget
    for index, worker in enumerate(world.workers):
        if worker.step == "done":
            continue
        if worker.paused:
            yield put(world, index, replace(worker, paused=False))
            continue
        if crashes:
            gone = replace(world, budget=(crashes - 1, pauses, lost, broken), alive=world.alive - {worker.nonce})
            yield put(gone, index, Worker())
        if pauses and worker.step in ("training", "posting"):
            stale = replace(world, budget=(crashes, pauses - 1, lost, broken), alive=world.alive - {worker.nonce})
            yield put(stale, index, replace(worker, paused=True))
        if worker.step == "idle":
            if world.result:
                yield put(world, index, replace(worker, step="done"))
            elif (not world.claims or world.claims[-1] not in world.alive) and len(world.claims) < MAX_EPOCH:
                fresh = replace(world, next_nonce=world.next_nonce + 1)
                claimer = Worker(step="claiming", seen=len(world.claims), nonce=world.next_nonce)
                yield put(fresh, index, claimer)
        elif worker.step == "claiming":
            yield from create_claim(world, index, worker, rules)
        elif worker.step == "training":
            if broken:
                back = replace(world, budget=(crashes, pauses, lost, broken - 1), alive=world.alive - {worker.nonce})
                yield put(back, index, Worker(step="done"))
            yield put(world, index, replace(worker, step="posting", retrying=False))
        elif worker.step == "posting":
            yield from create_result(world, index, worker, rules)


def create_claim(world: World, index: int, worker: Worker, rules: Rules):
    """The claim reaches the store; its answer may not reach the worker, which then asks again."""
    free = len(world.claims) == worker.seen or not rules.claim_is_create_only
    after = world
    if free:
        kept = world.claims[: worker.seen]
        after = replace(world, claims=(*kept, worker.nonce), alive=world.alive | {worker.nonce})
        if world.budget[2] and not worker.retrying:
            crashes, pauses, lost, broken = world.budget
            yield put(replace(after, budget=(crashes, pauses, lost - 1, broken)), index, replace(worker, retrying=True))
    mine = len(world.claims) > worker.seen and world.claims[worker.seen] == worker.nonce
    if free or (mine and worker.retrying and rules.lost_acknowledgement_is_recognised):
        term = worker.seen + 1
        owned = replace(after, owners=after.owners | {(term, worker.nonce)})
        yield put(owned, index, replace(worker, step="training", term=term))
    else:
        # What it wrote itself it takes for another's, and no longer beats for.
        yield put(replace(world, alive=world.alive - {worker.nonce}), index, Worker())


def create_result(world: World, index: int, worker: Worker, rules: Rules):
    """The result reaches the store; first writer wins, and the second reads what was accepted."""
    free = world.result == 0 or not rules.result_is_create_only
    after = world
    if free:
        after = replace(
            world, result=worker.nonce, overwritten=world.overwritten or bool(world.posted - {worker.nonce})
        )
        if world.budget[2] and not worker.retrying:
            crashes, pauses, lost, broken = world.budget
            yield put(replace(after, budget=(crashes, pauses, lost - 1, broken)), index, replace(worker, retrying=True))
    believes = after.result if rules.accepted_result_is_read_back else worker.nonce
    told = replace(after, posted=after.posted | {believes}, alive=after.alive - {worker.nonce})
    yield put(told, index, replace(worker, step="done", believes=believes))


def put(world: World, index: int, worker: Worker) -> World:
    """The world with one worker changed."""
    pair = list(world.workers)
    pair[index] = worker
    return replace(world, workers=tuple(pair))


def violations(world: World, rules: Rules) -> list[str]:
    """What is wrong with a world, whatever comes next."""
    found = []
    terms = [term for term, _ in world.owners]
    if len(terms) != len(set(terms)):
        found.append("a term has two owners")
    if world.overwritten or len(world.posted) > 1:
        found.append("an acknowledged result was lost")
    if rules == Rules() and sum(nonce in world.alive for nonce in world.claims) > 1:
        found.append("a live claim was taken over")
    return found


@dataclass
class Exploration:
    """What was seen."""

    states: int = 0
    found: set = field(default_factory=set)
    stuck: int = 0


def explore(rules: Rules, until: str = "") -> Exploration:
    """Visit every reachable world once, or until a violation is found."""
    seen, queue, exploration = {World()}, deque([World()]), Exploration()
    while queue:
        world = queue.popleft()
        exploration.found.update(violations(world, rules))
        if until in exploration.found:
            break
        following = list(steps(world, rules))
        if not following and not world.result and len(world.claims) < MAX_EPOCH:
            exploration.stuck += 1
        for new in following:
            if new not in seen:
                seen.add(new)
                queue.append(new)
    exploration.states = len(seen)
    return exploration


def test_no_interleaving_violates_the_protocol():
    """Of tens of thousands of states none has two owners of a term, a lost result, or no way on."""
    exploration = explore(Rules())

    assert set() == exploration.found
    assert 0 == exploration.stuck
    assert exploration.states > 10_000


@pytest.mark.parametrize(
    ("bug", "violation"),
    [
        ("result_is_create_only", "an acknowledged result was lost"),
        ("claim_is_create_only", "a term has two owners"),
        ("accepted_result_is_read_back", "an acknowledged result was lost"),
    ],
)
def test_seeded_bug_is_found(bug, violation):
    """Each mistake in the protocol shows up as the violation it causes."""
    assert violation in explore(replace(Rules(), **{bug: False}), until=violation).found
