"""Names and sources of datasets: what is accepted, what is refused and how."""

import pytest

from components.data.sources.presence import check_source
from components.dataset_name import local_path, parse_dataset, pinned_digest, redacted
from components.errors import ConfigurationError, ParameterError


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("fashion-mnist", ("fashion-mnist", "")),
        ("fashion-products", ("fashion-products", "")),
        ("fashion-mnist=/data/a=b", ("fashion-mnist", "/data/a=b")),
        ("shoes-2024=gs://bucket/shoes.zip", ("shoes-2024", "gs://bucket/shoes.zip")),
        ("fashion-products=kaggle", ("fashion-products", "kaggle")),
        ("x=https://host/a.zip#sha256=" + "0" * 64, ("x", "https://host/a.zip#sha256=" + "0" * 64)),
    ],
)
def test_parses(dataset, expected):
    """A name alone means the publisher; whatever follows the first = is the source."""
    assert expected == parse_dataset(dataset)


@pytest.mark.parametrize(
    "dataset",
    [
        "",
        "imagenet",
        "=x",
        "fashion-mnist=",
        "fashion-mnist= ",
        "../x=/data",
        "Fashion=/data",
        "a--b=/data",
        "-a=/data",
        "a" * 41 + "=/data",
        "é=/data",
        "<script>=/data",
        "shoes=kaggle",
        "shoes=ftp://host/x",
        "shoes=https://",
        "shoes=gs://",
        "shoes=s3:///key",
        "shoes=https://user:hunter2@host/x",
        "shoes=ftp://user:hunter2@host/x y",
        "shoes=https://host/a b",
        "shoes=https://host/x#sha256=12",
        "shoes=file://host/x",
        "shoes=http://[::1",
        "shoes=/data\n/x",
        "shoes=/" + "x" * 3000,
        7,
        None,
    ],
)
def test_refuses(dataset):
    """Anything else is a parameter error that does not repeat secrets."""
    with pytest.raises(ParameterError) as caught:
        parse_dataset(dataset)

    assert "hunter2" not in str(caught.value)


def test_missing_path_is_found_early(tmp_path):
    """A local source that is not there is refused before anything runs."""
    check_source("fashion-mnist", str(tmp_path))

    with pytest.raises(ParameterError, match="must exist"):
        check_source("fashion-mnist", str(tmp_path / "absent"))


def test_remote_sources_are_not_asked():
    """The check opens no connection."""
    check_source("fashion-mnist", "gs://bucket/x")
    check_source("fashion-mnist", "https://host.invalid/x")
    check_source("fashion-mnist", "")


def test_kaggle_token_is_looked_for_where_it_should_be(monkeypatch, tmp_path):
    """Without a token Kaggle is refused where ingest runs in the same process, and only there."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    check_source("fashion-products", "")

    with pytest.raises(ConfigurationError, match="token"):
        check_source("fashion-products", "", secrets_are_here=True)


def test_paths_and_uris_are_told_apart(tmp_path):
    """`file://` and plain paths are local, everything else is remote."""
    assert str(tmp_path / "a b") == str(local_path(f"file://{tmp_path}/a%20b"))
    assert str(tmp_path) == str(local_path(str(tmp_path)))
    assert [None] * 4 == [local_path(s) for s in ("gs://b/x", "s3://b/x", "https://h/x", "kaggle")]


def test_shown_sources_carry_no_secret():
    """Query, user and fragment never reach a report."""
    assert "https://host/a.zip" == redacted("https://u:p@host/a.zip?token=1#sha256=" + "0" * 64)
    assert "0" * 64 == pinned_digest("https://host/a.zip#sha256=" + "0" * 64)
    assert "" == pinned_digest("/data/a#sha256=" + "0" * 64)
