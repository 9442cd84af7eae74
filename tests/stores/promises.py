"""What every store promises, as functions of a store that start with `promise_`; each needs an empty one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.errors import ParameterError
from components.stores import ObjectNotFoundError, check_store


def race(num_racers, start):
    """Let threads begin at one moment; return what `start(racer)` gave each."""
    barrier = threading.Barrier(num_racers)

    def run(racer):
        barrier.wait(10)
        return start(racer)

    with ThreadPoolExecutor(num_racers) as pool:
        return list(pool.map(run, range(num_racers)))


def promise_second_creator_is_refused(store):
    """Only the first of two creators writes."""
    assert store.create("a/b.json", b"first") is True
    assert store.create("a/b.json", b"second") is False
    assert b"first" == store.read("a/b.json")


def promise_one_winner_among_racing_creators(store):
    """Of 8 creators at one moment, exactly one wins, and its content stays; 20 rounds."""
    for number in range(20):
        won = race(8, lambda racer, number=number: store.create(f"race/{number}", b"%d" % racer))

        assert 1 == sum(won)
        assert won.index(True) == int(store.read(f"race/{number}"))


def promise_probe_accepts_the_store(store):
    """The check before a study passes and leaves nothing behind."""
    check_store(store)

    assert [] == store.list()


def promise_absent_object_is_told(store):
    """Reading what is not there says so."""
    with pytest.raises(ObjectNotFoundError, match="absent"):
        store.read("absent")


def promise_written_object_replaces(store):
    """A write takes effect whatever was there, and at once."""
    for content in (b"1", b"", b"three"):
        store.write("beat", content)
        assert content == store.read("beat")


def promise_bytes_come_back(store):
    """Content survives as it is: empty, binary and larger than one upload part."""
    for key, content in {"empty": b"", "binary": bytes(range(256)), "large": bytes(range(256)) * 40_000}.items():
        assert store.create(key, content)
        assert content == store.read(key)


def promise_listing_is_complete_and_sorted(store):
    """Every key under a prefix is listed, whatever its depth and the number of pages."""
    keys = [*(f"trials/{n:05d}/params.json" for n in range(12)), "trialsx", "z"]
    for key in reversed(keys):
        store.create(key, b"x")

    assert keys == store.list()
    assert keys[:12] == store.list("trials/")
    assert keys[:10] == store.list("trials/0000")
    assert keys[:13] == store.list("trials")
    assert [] == store.list("nothing/")


def promise_deleted_object_is_gone(store):
    """A deleted key is absent, may be deleted again and created anew."""
    store.create("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")

    assert [] == store.list()
    assert store.create("a/b", b"2")


def promise_children_share_the_store(store):
    """A child store sees the keys under its prefix, and only those."""
    store.create("s/a", b"1")
    store.create("t/a", b"2")
    child = store / "s"

    assert ["a"] == child.list()
    assert b"1" == child.read("a")
    assert f"{store.uri}/s" == child.uri


def promise_keys_stay_inside(store):
    """A key that could leave the prefix is refused."""
    for key in ("", "/a", "a//b", "../a", "a/../b", "a/", ".", "a\nb", ".tmp-x", "ä"):
        with pytest.raises(ParameterError, match="object key"):
            store.create(key, b"")


PROMISES = [value for name, value in sorted(globals().items()) if name.startswith("promise_")]
