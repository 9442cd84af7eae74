"""The cache: only whole, verified files, whatever kills, fills or shares it."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.data.readers.fashion_mnist import FILES
from components.data.sources import cache as raw_cache
from components.data.sources.cache import RawCache, default_directory
from components.data.sources.http import HttpFile
from components.errors import DataError, PermissionDeniedError, StorageError, TryAgainError, UnavailableError
from tests.data.builders import products, run_ingest, tree
from tests.fakes.files import FileServer

ROOT = Path(__file__).resolve().parents[3]
DATA = os.urandom(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()

FETCH = """
import sys
from components.data.readers.fashion_mnist import FILES
from components.data.sources.http import HttpFile
from components.data.sources.cache import RawCache
with RawCache(sys.argv[1]) as cache:
    cache.get(HttpFile(url=sys.argv[2]))
"""


def fetch_in_process(cache, url, **options):
    """Start a process that fetches one file."""
    return subprocess.Popen([sys.executable, "-c", FETCH, str(cache), url], cwd=ROOT, **options)


def wait_for(condition, seconds=30.0):
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_in_the_middle(tmp_path):
    """After kill -9 nothing unverified has a name in the cache, the lock is free, and the next fetch goes on."""
    with FileServer({"/a.zip": DATA}, bytes_per_second=400_000) as server:
        process = fetch_in_process(tmp_path, server.url + "/a.zip")
        wait_for(lambda: any(p.stat().st_size > 50_000 for p in tmp_path.glob("partial/*") if not p.suffix))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert [] == list(tmp_path.glob("sha256/*")) + list(tmp_path.glob("index/*"))
        server.bytes_per_second = 0.0

        with RawCache(str(tmp_path)) as cache:
            assert DATA == cache.get(HttpFile(url=server.url + "/a.zip")).path.read_bytes()

    assert re.fullmatch(r"bytes=\d{5,6}-", server.requests[-1][1]["range"])
    assert [] == list(tmp_path.glob("partial/*"))


@pytest.mark.parametrize("source", ["fashion-products={url}/p.zip", "fashion-mnist={url}/"])
def test_interrupted(tmp_path, source):
    """Ctrl-C ends a download at once with exit code 130; what has arrived serves the next run."""
    files = {f"/{name}": DATA for name in FILES} | {"/p.zip": DATA}
    code = (
        "import sys\nfrom pathlib import Path\nfrom components.errors import reporting\n"
        "from tests.data.builders import run_ingest\n"
        "with reporting('ingest'):\n    run_ingest(sys.argv[1], Path(sys.argv[2]), cache=sys.argv[3])"
    )
    with FileServer(files, bytes_per_second=15_000) as server:
        command = [
            sys.executable,
            "-c",
            code,
            source.format(url=server.url),
            str(tmp_path / "out"),
            str(tmp_path / "c"),
        ]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: any(p.stat().st_size > 5_000 for p in (tmp_path / "c").glob("partial/*") if not p.suffix), 60)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=10)

    assert (130, []) == (process.returncode, list((tmp_path / "c").glob("sha256/*")))
    assert text.splitlines()[-1].startswith("ERROR 130 ingest")


def test_two_processes(tmp_path):
    """Processes that want the same file fetch it once."""
    with FileServer({"/a.zip": DATA}, bytes_per_second=2_000_000) as server:
        processes = [fetch_in_process(tmp_path, server.url + "/a.zip") for _ in range(2)]
        assert [0, 0] == [process.wait(60) for process in processes]

    assert 1 == sum("if-none-match" not in headers for _, headers in server.requests)
    assert [SHA256] == [p.name for p in tmp_path.glob("sha256/*")]


def test_waiting_ends(tmp_path, monkeypatch):
    """Waiting for another process has an end."""
    monkeypatch.setattr(raw_cache, "LOCK_SECONDS", 0.2)

    def fetch_and_fail():
        with pytest.raises(UnavailableError):
            cache.get(HttpFile(url=server.url + "/a.zip"))

    with FileServer({"/a.zip": DATA}, bytes_per_second=100_000) as server, RawCache(str(tmp_path)) as cache:
        thread = threading.Thread(target=fetch_and_fail)
        thread.start()
        wait_for(lambda: server.requests)
        with pytest.raises(TryAgainError, match="must be free"):
            cache.get(HttpFile(url=server.url + "/a.zip"))
        server.closing.set()
        thread.join(20)


def test_damaged_copy(tmp_path, caplog):
    """A cached file that changed on disk is noticed and fetched again."""
    with FileServer({"/a.zip": DATA}) as server, RawCache(str(tmp_path)) as cache:
        remote = HttpFile(url=server.url + "/a.zip")
        path = cache.get(remote).path
        path.write_bytes(DATA[:-1])

        assert DATA == cache.get(remote).path.read_bytes()

    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"sha256": 7}',
        '{"sha256": "../../../../etc/passwd", "validator": ""}',
        '{"sha256": "%s"}' % ("x" * 64),
    ],
)
def test_damaged_index(tmp_path, text):
    """A damaged index entry costs a download, nothing else."""
    with FileServer({"/a.zip": DATA}) as server, RawCache(str(tmp_path)) as cache:
        remote = HttpFile(url=server.url + "/a.zip")
        cache.get(remote)
        (entry,) = tmp_path.glob("index/*.json")
        entry.write_text(text)

        assert DATA == cache.get(remote).path.read_bytes()
        assert SHA256 == json.loads(entry.read_text())["sha256"]


def test_old_leftovers_are_swept(tmp_path):
    """Unfinished downloads disappear after a week, others stay."""
    with RawCache(str(tmp_path)):
        for name, age in (("old", 8), ("new", 1)):
            (tmp_path / "partial" / name).write_bytes(b"x")
            os.utime(tmp_path / "partial" / name, (time.time() - age * 86_400,) * 2)
    with RawCache(str(tmp_path)):
        assert ["new"] == [p.name for p in tmp_path.glob("partial/*")]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from pathlib import Path
from components.data.ingest import ingest
from components.errors import reporting
from components.parameters import DataSettings
out = Path(sys.argv[4])
with reporting("ingest"):
    ingest(sys.argv[2], settings=DataSettings(), train_dir=out / "a", test_dir=out / "b", report_dir=out / "c", cache=sys.argv[3])
"""


def ingest_with_full_disk(limit, dataset, cache, out):
    """Ingest in a process that cannot write files beyond a size; return its exit code and standard error."""
    command = [sys.executable, "-c", FULL, str(limit), dataset, str(cache), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


def test_full_disk_while_fetching(tmp_path):
    """A full disk ends with exit code 74 and one line; what was cached before stays, nothing else does."""
    data = products(tmp_path / "p.zip").read_bytes()
    with FileServer({"/p.zip": data, "/a.zip": DATA[:1000]}) as server:
        with RawCache(str(tmp_path / "c")) as cache:
            cache.get(HttpFile(url=server.url + "/a.zip"))
        before = {name: content for name, content in tree(tmp_path / "c").items() if "locks" not in name}

        code, text = ingest_with_full_disk(
            20_000, f"fashion-products={server.url}/p.zip", tmp_path / "c", tmp_path / "out"
        )

    assert (74, 1) == (code, len(text.splitlines()))
    assert text.startswith("ERROR 74 ingest: ")
    assert before == {name: content for name, content in tree(tmp_path / "c").items() if "locks" not in name}


def test_full_disk_while_writing(tmp_path):
    """A full disk while writing the arrays ends with exit code 74, and no `dataset.json` calls the rest complete."""
    source = products(tmp_path / "p.zip")

    code, text = ingest_with_full_disk(20_000, f"fashion-products={source}", tmp_path / "c", tmp_path / "out")

    assert (74, 1) == (code, len(text.splitlines()))
    assert not list((tmp_path / "out").rglob("dataset.json"))


def test_read_only_places(tmp_path):
    """A cache that cannot be made is refused by name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="file"), RawCache(str(tmp_path / "file" / "cache")):
        pass


def test_somebody_elses_cache(tmp_path, monkeypatch):
    """A cache that another user prepared is not trusted."""
    monkeypatch.setattr(os, "getuid", lambda: 12345)

    with pytest.raises(PermissionDeniedError, match="belong to this user"), RawCache(str(tmp_path / "c")):
        pass


def test_where_the_cache_is(monkeypatch, tmp_path):
    """The user's cache directory, or a private temporary one where there is no home."""
    assert tmp_path / "cache/fashion-tuning" == default_directory()
    monkeypatch.delenv("XDG_CACHE_HOME")
    (tmp_path / "home").mkdir()
    assert tmp_path / "home/.cache/fashion-tuning" == default_directory()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert tmp_path / f"fashion-tuning-{os.getuid()}" == default_directory()


def test_unusable_file_is_not_kept(tmp_path):
    """An archive that is truncated at its source is fetched, found out and forgotten; the next run fetches again."""
    data = products(tmp_path / "p.zip").read_bytes()
    headers = {"Last-Modified": "Sun, 01 Nov 2026 10:00:00 GMT"}
    with FileServer({"/p.zip": data[: len(data) // 2]}, validators=False, headers=headers) as server:
        with pytest.raises(DataError, match="cut short"):
            run_ingest(f"fashion-products={server.url}/p.zip", tmp_path / "out", cache=tmp_path / "c")
        assert {} == {name: data for name, data in tree(tmp_path / "c").items() if "locks" not in name}
        server.files["/p.zip"] = data

        run_ingest(f"fashion-products={server.url}/p.zip", tmp_path / "out", cache=tmp_path / "c")


def test_memory_is_bounded(tmp_path):
    """Fetching does not hold the file in memory."""
    size = 150 * 2**20
    with FileServer({"/a.bin": bytes(size)}) as server:
        code = FETCH + "from tests.data.builders import peak_memory\nprint(peak_memory())\n"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), server.url + "/a.bin"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

    assert int(done.stdout) < size
