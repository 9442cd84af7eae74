"""What the tests of fetching share: short patience, no credentials, no cache of the user's."""

import pytest

from components.data.sources import transfer
from components.data.sources.transfer import Patience


@pytest.fixture(autouse=True)
def _private_environment(monkeypatch, tmp_path):
    """Keep the user's cache, secrets and proxies out of every test."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "KAGGLE_API_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    """Let retries follow at once."""
    patience = Patience(
        connect_seconds=1.0, read_seconds=0.4, tries=3, first_pause_seconds=0.01, longest_pause_seconds=0.02
    )
    monkeypatch.setattr(transfer, "PATIENCE", patience)
