"""2,000 operations on a store of which every twentieth, or every fifth, request goes wrong."""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.stores import ObjectNotFoundError, open_store, retrying
from tests.fakes.gcs import Fault

FAULTS = [
    Fault("status", status=503, when="before"),
    Fault("status", status=503, when="after"),
    Fault("status", status=429, when="before"),
    Fault("drop", when="before"),
    Fault("drop", when="after"),
    Fault("reset", when="after"),
    Fault("page", when="after"),
    Fault("upload-reset"),
    Fault("upload-corrupt"),
    Fault("unhashed"),
    Fault("truncate"),
    Fault("corrupt"),
]
OPERATIONS = 2000
WRITERS = 8


def write_and_check(store, writer, seed, won):
    """Do this writer's share of operations; return what it read wrongly.

    Each writer has keys of its own, on which it knows what must be there, and creates keys that all fight for.
    """
    generator, known, wrong = random.Random(seed * 1000 + writer), {}, []
    for number in range(OPERATIONS // WRITERS):
        key = f"own/{writer}/{generator.randrange(12)}"
        action = generator.choice(("create", "create", "read", "write", "delete", "fight", "list"))
        content = f"{writer}-{number}".encode()
        if action == "create":
            if store.create(key, content) != (key not in known):
                wrong.append(f"create {key} answered wrongly")
            known.setdefault(key, content)
        elif action == "write":
            store.write(key, content)
            known[key] = content
        elif action == "delete":
            store.delete(key)
            known.pop(key, None)
        elif action == "read":
            try:
                found = store.read(key)
            except ObjectNotFoundError:
                found = None
            if found != known.get(key):
                wrong.append(f"{key} is {found}, must be {known.get(key)}")
        elif action == "list":
            if store.list(f"own/{writer}/") != sorted(known):
                wrong.append(f"listing of {writer} is wrong")
        else:
            # Equal content: only the store's own nonce can tell whose it is.
            key = f"fight/{number}"
            if store.create(key, b"mine"):
                won[key] += 1
    return wrong


@pytest.mark.parametrize("rate", [pytest.param(0.05, marks=pytest.mark.slow), 0.2])
def test_faulty_store_keeps_every_promise(server, monkeypatch, rate):
    """No acknowledged write is lost, no operation answers wrongly, and each contested key has one creator."""
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.002)
    scheme, faulty = server
    seed = 20261122
    faulty.page_size = 1000
    faulty.fail_randomly(rate, seed, FAULTS)
    store, won = open_store(f"{scheme}://bucket/root-{time.monotonic_ns()}", deadline_seconds=60), Counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        wrong = [w for found in pool.map(lambda n: write_and_check(store, n, seed, won), range(WRITERS)) for w in found]
    faulty.heal()

    assert [] == wrong, f"seed {seed}"
    assert {1} == set(won.values())
    assert sorted(won) == sorted(store.list("fight/"))
