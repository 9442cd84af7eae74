"""Kaggle: where the token is looked for, how it is used, and that it never shows."""

import base64
import json

import pytest

from components.data.sources import kaggle
from components.data.sources.kaggle import find_credentials
from components.errors import ConfigurationError, PermissionDeniedError, UnavailableError
from tests.data.builders import mnist_files, products, run_ingest, tree, write_files
from tests.fakes.files import Failure, FileServer

PATH = "/api/v1/datasets/download/paramaggarwal/fashion-product-images-small"
BASIC = "Basic " + base64.b64encode(b"user:s3cret").decode()


def header(auth):
    """Return the Authorization header that a token makes."""

    class Request:
        headers = {}  # noqa: RUF012 - one request per call

    Request.headers = {}
    return auth(Request()).headers["Authorization"]


def test_environment(monkeypatch):
    """Kaggle's own variables are used; the newer token wins."""
    monkeypatch.setenv("KAGGLE_USERNAME", "user")
    monkeypatch.setenv("KAGGLE_KEY", "s3cret")
    assert BASIC == header(find_credentials())
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_x")

    assert "Bearer KGAT_x" == header(find_credentials())


@pytest.mark.parametrize("place", ["mounted", "configured", "home/.kaggle", "home/.config/kaggle"])
def test_files(monkeypatch, tmp_path, place):
    """A mounted secret, Kaggle's own folders and the configured one are searched."""
    monkeypatch.setattr(kaggle, "SECRET_DIR", tmp_path / "mounted")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "configured"))
    write_files(tmp_path / place, {"kaggle.json": b'{"username": "user", "key": "s3cret"}'})
    assert BASIC == header(find_credentials())
    write_files(tmp_path / place, {"access_token": b"KGAT_x\n"})

    assert "Bearer KGAT_x" == header(find_credentials())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"username": "user"}',
        b'{"username": "", "key": "s3cret"}',
        b'{"username": 7, "key": "s3cret"}',
        b"\xff",
    ],
)
def test_unusable_file(monkeypatch, tmp_path, content):
    """An unusable file is named with a remedy; its content is not."""
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"kaggle\.com/settings") as caught:
        find_credentials()

    assert 78 == caught.value.exit_code
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_half_a_token(monkeypatch):
    """A user without a key is told what is missing."""
    monkeypatch.setenv("KAGGLE_USERNAME", "user")

    with pytest.raises(ConfigurationError, match="KAGGLE_KEY must be set"):
        find_credentials()


def test_no_token(tmp_path):
    """Without a token ingest ends at once, and says how to get one."""
    with pytest.raises(ConfigurationError, match="token must be there"):
        run_ingest("fashion-products", tmp_path / "out")


@pytest.fixture
def server(monkeypatch):
    """A Kaggle that wants the token."""
    with FileServer({}, authorization=BASIC) as fake:
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", fake.url)
        monkeypatch.setenv("KAGGLE_USERNAME", "user")
        monkeypatch.setenv("KAGGLE_KEY", "s3cret")
        yield fake


@pytest.mark.parametrize("dataset", ["fashion-products", "fashion-products=kaggle"])
def test_ingests(server, tmp_path, dataset):
    """The archive is fetched with the token, once; neither data nor report holds it."""
    server.files[PATH] = products(tmp_path / "p.zip").read_bytes()

    info = run_ingest(dataset, tmp_path / "a", cache=tmp_path / "c")
    run_ingest(dataset, tmp_path / "b", cache=tmp_path / "c")

    assert "kaggle" == info.source
    assert ["fashion-product-images-small.zip"] == list(info.checksums)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert 2 == len(server.requests)
    assert not any(b"s3cret" in data for data in (tree(tmp_path / "a") | tree(tmp_path / "c")).values())


def test_fashion_mnist_from_kaggle(server, tmp_path):
    """Kaggle's archive of Fashion-MNIST is read as well."""
    import gzip

    from tests.data.builders import make_zip

    plain = [(name.removesuffix(".gz"), gzip.decompress(data)) for name, data in mnist_files().items()]
    server.files["/api/v1/datasets/download/zalando-research/fashionmnist"] = make_zip(
        tmp_path / "m.zip", plain
    ).read_bytes()

    assert 80 == sum(run_ingest("fashion-mnist=kaggle", tmp_path / "out").counts.values())


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, ConfigurationError, "token must be valid"),
        (403, PermissionDeniedError, "Open https://www.kaggle.com/datasets/paramaggarwal"),
        (404, UnavailableError, "must have the dataset"),
        (503, UnavailableError, "Try again later"),
    ],
)
def test_refusals(server, tmp_path, status, error, text):
    """An expired token, unaccepted terms, a vanished dataset and an outage are told apart."""
    server.fail(Failure("status", status, times=-1))

    with pytest.raises(error, match=text) as caught:
        run_ingest("fashion-products", tmp_path / "out")

    assert "s3cret" not in str(caught.value)


def test_token_is_json_safe():
    """The token object shows nothing of itself."""
    assert "s3cret" not in repr(kaggle.KaggleAuth("user", "s3cret"))
    assert "s3cret" not in json.dumps(str(kaggle.KaggleAuth("user", "s3cret")))
