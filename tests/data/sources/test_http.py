"""Fetching over HTTP: whole, verified files, whatever the network does."""

import base64
import hashlib
import logging
import os

import pytest

from components.data.sources import http as http_source
from components.data.sources import progress, transfer
from components.data.sources.cache import RawCache
from components.data.sources.http import HttpFile
from components.data.sources.transfer import Expected
from components.errors import ConfigurationError, DataError, ParameterError, PermissionDeniedError, UnavailableError
from tests.data.builders import mnist_files, products, run_ingest, tree
from tests.fakes.files import Failure, FileServer

DATA = os.urandom(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def fetch(server, cache, path="/a.zip", **options):
    """Fetch one file and return its bytes; what the cache holds afterwards must be whole."""
    with RawCache(str(cache)) as raw_cache:
        cached = raw_cache.get(HttpFile(url=server.url + path, **options))
        return cached.path.read_bytes()


def whole_files(cache):
    """Return the cached files, each checked against its name; nothing else may be left but locks and the index."""
    files = {p: p.read_bytes() for p in cache.glob("sha256/*")}
    assert [p.name for p in files] == [hashlib.sha256(data).hexdigest() for data in files.values()]
    return list(files.values())


def partials(cache):
    """Return what is left of unfinished downloads."""
    return [p.name for p in cache.glob("partial/*")]


def test_fetches_once(tmp_path):
    """The second fetch asks whether the file changed and takes the cached one."""
    with FileServer({"/a.zip": DATA}) as server:
        assert DATA == fetch(server, tmp_path)
        assert DATA == fetch(server, tmp_path)

    assert [None, f'"{SHA256[:16]}"'] == [headers.get("if-none-match") for _, headers in server.requests]
    assert ([DATA], []) == (whole_files(tmp_path), partials(tmp_path))


def test_pinned_file_needs_no_question(tmp_path):
    """A cached file whose digest is known beforehand is taken without any request."""
    expected = Expected(digests={"sha256": SHA256})
    with FileServer({"/a.zip": DATA}) as server:
        fetch(server, tmp_path, expected=expected)
        fetch(server, tmp_path, expected=expected)

    assert 1 == len(server.requests)


def test_changed_file_is_fetched_again(tmp_path):
    """Another version replaces the old one in the index."""
    with FileServer({"/a.zip": DATA}) as server:
        fetch(server, tmp_path)
        server.files["/a.zip"] = b"new"

        assert b"new" == fetch(server, tmp_path)


def test_server_without_validators(tmp_path):
    """Without any version the file is fetched each time."""
    with FileServer({"/a.zip": DATA}, validators=False) as server:
        assert DATA == fetch(server, tmp_path)
        assert DATA == fetch(server, tmp_path)

    assert 2 == len(server.requests)


def test_date_as_version(tmp_path):
    """A modification date serves where there is no ETag."""
    headers = {"Last-Modified": "Sun, 01 Nov 2026 10:00:00 GMT"}
    with FileServer({"/a.zip": DATA}, validators=False, headers=headers) as server:
        server.fail(Failure("truncate"))
        assert DATA == fetch(server, tmp_path)
        assert DATA == fetch(server, tmp_path)

    assert "bytes=150000-" == server.requests[1][1]["range"]
    assert headers["Last-Modified"] == server.requests[1][1]["if-range"]


@pytest.mark.parametrize(
    "failure",
    [
        Failure("status", 503, times=2),
        Failure("status", 500),
        Failure("status", 502),
        Failure("status", 504),
        Failure("status", 408),
        Failure("status", 429, headers=(("Retry-After", "0"),)),
        Failure("truncate"),
        Failure("truncate", keep=0),
        Failure("drop"),
        Failure("stall", seconds=0.6),
        Failure("lie"),
    ],
    ids=lambda f: f"{f.kind}{f.status if f.kind == 'status' else f.keep}",
)
def test_passing_failures(tmp_path, failure):
    """What passes is repeated, and the file is whole."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(failure)

        assert DATA == fetch(server, tmp_path)

    assert ([DATA], []) == (whole_files(tmp_path), partials(tmp_path))


def test_resumes(tmp_path):
    """After a broken connection only the rest is fetched."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=200_000), Failure("truncate", keep=50_000))

        assert DATA == fetch(server, tmp_path)

    assert [None, "bytes=200000-", "bytes=250000-"] == [headers.get("range") for _, headers in server.requests]


def test_many_breaks(tmp_path):
    """As long as bytes arrive, a bad connection is good enough."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=30_000, times=9))

        assert DATA == fetch(server, tmp_path)


def test_resumes_in_the_next_run(tmp_path):
    """What a given-up fetch leaves is used by the next one."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=100_000), Failure("drop", times=5))
        with pytest.raises(UnavailableError):
            fetch(server, tmp_path)
        assert [] == whole_files(tmp_path)
        server.failures.clear()

        assert DATA == fetch(server, tmp_path)

    assert "bytes=100000-" == server.requests[-1][1]["range"]
    assert [] == partials(tmp_path)


def test_new_version_is_not_glued_to_the_old(tmp_path):
    """A file that changed between two tries is fetched from its beginning."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=100_000), Failure("drop", times=5))
        with pytest.raises(UnavailableError):
            fetch(server, tmp_path)
        server.failures.clear()
        server.files["/a.zip"] = DATA[::-1]

        assert DATA[::-1] == fetch(server, tmp_path)


@pytest.mark.parametrize("options", [{"ranges": False}, {"lengths": False}])
def test_simple_servers(tmp_path, options):
    """Servers without ranges or lengths serve as well."""
    with FileServer({"/a.zip": DATA}, **options) as server:
        server.fail(Failure("truncate", keep=1000) if "ranges" in options else Failure("status"))

        assert DATA == fetch(server, tmp_path)


def test_wrong_range(tmp_path):
    """An answer to another range starts the download anew."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate"), Failure("wrong_range"))

        assert DATA == fetch(server, tmp_path)


def test_partial_longer_than_the_file(tmp_path):
    """Leftovers that reach beyond the file are thrown away."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=1000), Failure("drop", times=5))
        with pytest.raises(UnavailableError):
            fetch(server, tmp_path)
        server.failures.clear()
        (partial,) = (p for p in tmp_path.glob("partial/*") if not p.suffix)
        partial.write_bytes(bytes(400_000))

        assert DATA == fetch(server, tmp_path)


def test_leftovers_without_version(tmp_path):
    """Leftovers whose version is unknown or unreadable are thrown away."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("truncate", keep=1000), Failure("drop", times=5))
        with pytest.raises(UnavailableError):
            fetch(server, tmp_path)
        server.failures.clear()
        (state,) = tmp_path.glob("partial/*.json")
        state.write_text("{")

        assert DATA == fetch(server, tmp_path)

    assert "range" not in server.requests[-1][1]


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, PermissionDeniedError, 77),
        (403, PermissionDeniedError, 77),
        (404, ParameterError, 64),
        (410, ParameterError, 64),
        (400, UnavailableError, 69),
        (503, UnavailableError, 69),
    ],
)
def test_lasting_failures(tmp_path, status, error, code):
    """Each status has its exit code; nothing is cached and the message names the place."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("status", status, times=-1))

        with pytest.raises(error, match=r"/a\.zip") as caught:
            fetch(server, tmp_path)

    assert (code, [], []) == (caught.value.exit_code, whole_files(tmp_path), partials(tmp_path))


def test_nobody_listens(tmp_path):
    """A closed port is an unavailable service."""
    with FileServer({}) as server:
        url = server.url
    with RawCache(str(tmp_path)) as cache, pytest.raises(UnavailableError, match="ConnectionRefused"):
        cache.get(HttpFile(url=url + "/a.zip"))


def test_wrong_digest(tmp_path):
    """A pinned file with another digest is refused with both, after one more try, and not kept."""
    with FileServer({"/a.zip": DATA}) as server, pytest.raises(DataError) as caught:
        fetch(server, tmp_path, expected=Expected(digests={"sha256": "0" * 64}))

    assert "0" * 64 in str(caught.value)
    assert SHA256 in str(caught.value)
    assert (65, 2, [], []) == (caught.value.exit_code, len(server.requests), whole_files(tmp_path), partials(tmp_path))


def test_damaged_on_the_way(tmp_path):
    """A file that arrives damaged once is fetched again."""
    with FileServer({"/a.zip": DATA}) as server:
        server.fail(Failure("corrupt"))

        assert DATA == fetch(server, tmp_path, expected=Expected(digests={"sha256": SHA256}))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Goog-Hash": "crc32c=AAAAAA==,md5=" + base64.b64encode(hashlib.md5(DATA).digest()).decode()},
        {"X-Goog-Hash": "md5=" + base64.b64encode(bytes(16)).decode()},
        {"Content-MD5": base64.b64encode(bytes(16)).decode()},
    ],
)
def test_digests_of_the_server(tmp_path, headers):
    """Digests that the server sends are compared as well."""
    with (
        FileServer({"/a.zip": DATA}, headers=headers) as server,
        pytest.raises(DataError, match=r"must have (CRC32C|MD5)"),
    ):
        fetch(server, tmp_path)


def test_too_large(tmp_path, monkeypatch):
    """A file above the limit is refused by its length, or as soon as it grows beyond."""
    monkeypatch.setattr(http_source, "MAX_BYTES", 200_000)
    for options in ({}, {"lengths": False}):
        with FileServer({"/a.zip": DATA}, **options) as server, pytest.raises(DataError, match="at most 200,000 bytes"):
            fetch(server, tmp_path)

    assert ([], []) == (whole_files(tmp_path), partials(tmp_path))


def test_redirects(tmp_path):
    """Redirects are followed, in a circle not for ever."""
    with FileServer({"/b.zip": DATA}) as server:
        server.redirects |= {"/a.zip": "/b.zip", "/loop": "/loop"}

        assert DATA == fetch(server, tmp_path)
        with pytest.raises(DataError, match="redirect"):
            fetch(server, tmp_path, "/loop")


def test_token_stays_with_its_host(tmp_path):
    """Credentials do not follow a redirect to another host."""
    from components.data.sources.kaggle import KaggleAuth

    with FileServer({"/b.zip": DATA}) as storage, FileServer({}) as server:
        server.redirects["/a.zip"] = storage.url.replace("127.0.0.1", "localhost") + "/b.zip"

        assert DATA == fetch(server, tmp_path, auth=KaggleAuth("", "token"))

    assert "Bearer token" == server.requests[0][1]["authorization"]
    assert "authorization" not in storage.requests[0][1]


def test_tls_needs_a_trusted_certificate(tmp_path):
    """A server without TLS behind https is a configuration to correct, not something to try again."""
    with (
        FileServer({}) as server,
        RawCache(str(tmp_path)) as cache,
        pytest.raises(ConfigurationError, match="certificate"),
    ):
        cache.get(HttpFile(url=server.url.replace("http:", "https:") + "/a.zip"))


def test_progress_is_told(tmp_path, monkeypatch, caplog):
    """A long download says how far it is, how fast, and how long it will take."""
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(http_source, "CHUNK_BYTES", 16_384)
    with caplog.at_level(logging.INFO, "components"), FileServer({"/a.zip": DATA}, bytes_per_second=10**6) as server:
        fetch(server, tmp_path)

    lines = [r.message for r in caplog.records if "MiB/s" in r.message]
    assert lines
    assert all(" of 0.3 MiB, " in line and "s left" in line for line in lines)


def test_ingests_products(tmp_path):
    """A product archive behind a URL, pinned by its digest, is ingested like a local one."""
    archive = products(tmp_path / "p.zip")
    data = archive.read_bytes()
    with FileServer({"/x/p.zip": data}) as server:
        pinned = f"{server.url}/x/p.zip?token=hidden#sha256={hashlib.sha256(data).hexdigest()}"
        server.files["/x/p.zip?token=hidden"] = data

        info = run_ingest(f"fashion-products={pinned}", tmp_path / "a", cache=tmp_path / "c")
        run_ingest(f"fashion-products={pinned}", tmp_path / "b", cache=tmp_path / "c")

    assert f"{server.url}/x/p.zip" == info.source
    assert 1 == len(server.requests)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not any(b"hidden" in content for content in tree(tmp_path / "a").values())


def test_ingests_fashion_mnist(tmp_path):
    """A URL that is a folder means its four files."""
    files = {f"/data/{name}": data for name, data in mnist_files().items()}
    with FileServer(files) as server:
        info = run_ingest(f"fashion-mnist={server.url}/data/", tmp_path / "out", cache=tmp_path / "c")

    assert 80 == sum(info.counts.values())
    assert 4 == len(whole_files(tmp_path / "c"))


def test_default_source_is_pinned(tmp_path, monkeypatch):
    """Whatever the publisher's place serves must be the published files; nothing else is cached."""
    from components.data.readers import fashion_mnist

    with FileServer({f"/{name}": data for name, data in mnist_files().items()}) as server:
        monkeypatch.setattr(fashion_mnist, "DEFAULT_SOURCE", server.url + "/")
        with pytest.raises(DataError, match=r"expected .* bytes, got"):
            run_ingest("fashion-mnist", tmp_path / "out", cache=tmp_path / "c")
        server.files.clear()
        with pytest.raises(UnavailableError, match="moved"):
            run_ingest("fashion-mnist", tmp_path / "out", cache=tmp_path / "c")

    assert [] == whole_files(tmp_path / "c")


def test_default_source(tmp_path, monkeypatch):
    """The published files are recognised by digest and length, and then need no network."""
    from components.data.readers import fashion_mnist

    files = mnist_files()
    monkeypatch.setattr(
        fashion_mnist, "PUBLISHED_MD5", {n: hashlib.md5(d, usedforsecurity=False).hexdigest() for n, d in files.items()}
    )
    monkeypatch.setattr(fashion_mnist, "PUBLISHED_BYTES", {name: len(data) for name, data in files.items()})
    with FileServer({f"/{name}": data for name, data in files.items()}) as server:
        monkeypatch.setattr(fashion_mnist, "DEFAULT_SOURCE", server.url + "/")
        run_ingest("fashion-mnist", tmp_path / "a", cache=tmp_path / "c")
    run_ingest("fashion-mnist", tmp_path / "b", cache=tmp_path / "c")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_patience_is_bounded():
    """The defaults give up on a silent host within a minute."""
    patience = transfer.Patience()
    pauses = sum(
        min(patience.first_pause_seconds * 2**i, patience.longest_pause_seconds) for i in range(patience.tries - 1)
    )

    assert patience.tries * patience.connect_seconds + pauses < 60
