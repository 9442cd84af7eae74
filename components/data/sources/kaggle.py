"""Finds Kaggle's token where Kaggle's own tools look for it, and where a cluster mounts it.

Source: https://github.com/Kaggle/kaggle-api/blob/main/docs/README.md ("Authentication").
"""

import json
import os
from pathlib import Path

import requests

from components.errors import ConfigurationError
from components.secret_values import checked_secret, secret_file, secret_variable

ENDPOINT = "https://www.kaggle.com"
ENDPOINT_VARIABLE = "KAGGLE_API_ENDPOINT"
SECRET_DIR = Path("/var/run/secrets/kaggle")
"""Where the cluster profiles mount the secret."""

_REMEDY = (
    "Make one at https://www.kaggle.com/settings and mount it as kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY;"
    " or give the downloaded file as NAME=SOURCE"
)


class KaggleAuth(requests.auth.AuthBase):
    """Puts the token on requests; it never appears in a text."""

    def __init__(self, username: str, key: str) -> None:
        """Take a user with key, or with an empty user a bearer token."""
        self._username, self._key = username, key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        if self._username:
            return requests.auth.HTTPBasicAuth(self._username, self._key)(request)
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def __repr__(self) -> str:
        return "KaggleAuth(***)"


def find_credentials() -> KaggleAuth:
    """Return the token from the environment, a mounted secret or Kaggle's own folders, in this order.

    Raises:
        ConfigurationError: There is none, or the file cannot be used. Its content is never shown.
    """
    if token := secret_variable("KAGGLE_API_TOKEN"):
        return KaggleAuth("", token)
    username, key = (secret_variable(name) for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"))
    if username and key:
        return KaggleAuth(username, key)
    if username or key:
        missing = "KAGGLE_KEY" if username else "KAGGLE_USERNAME"
        raise ConfigurationError(f"{missing} must be set as well; got only the other one. {_REMEDY}")
    for folder in _folders():
        for name, parse in (("access_token", _parse_token), ("kaggle.json", _parse_json)):
            path = folder / name
            try:
                text = secret_file(path, str(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except ConfigurationError as error:
                raise ConfigurationError(f"{error}. {_REMEDY}") from None
            return parse(path, text)
    raise ConfigurationError(f"Kaggle's token must be there to fetch from Kaggle; found none. {_REMEDY}")


def download_url(dataset: str) -> str:
    """Return the address of a dataset's newest archive; `dataset` is `owner/name`."""
    return f"{os.environ.get(ENDPOINT_VARIABLE, ENDPOINT).rstrip('/')}/api/v1/datasets/download/{dataset}"


def _folders() -> list[Path]:
    folders = [SECRET_DIR]
    if configured := os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.insert(0, Path(configured))
    if home := os.environ.get("HOME"):
        folders += [Path(home, ".kaggle"), Path(home, ".config", "kaggle")]
    return folders


def _parse_token(path: Path, text: str) -> KaggleAuth:
    if not text:
        raise ConfigurationError(f"{path} must hold a token; got an empty file. {_REMEDY}")
    return KaggleAuth("", checked_secret(text, str(path)))


def _parse_json(path: Path, text: str) -> KaggleAuth:
    try:
        values = json.loads(text)
        username, key = values["username"].strip(), values["key"].strip()
        if not (username and key):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path} must hold username and key as JSON; got something else. {_REMEDY}") from None
    return KaggleAuth(checked_secret(username, f"username in {path}"), checked_secret(key, f"key in {path}"))
