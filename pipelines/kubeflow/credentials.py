"""Who one is at the Kubeflow Pipelines API: a bearer token, a cookie, an Identity-Aware Proxy or a pod's own token."""

import os
from collections.abc import Callable
from pathlib import Path

import kfp_server_api

from components.errors import ConfigurationError, UnavailableError
from components.secret_values import check_google_key, checked_secret, secret_file, secret_variable

TOKEN, TOKEN_FILE, COOKIE, IAP_CLIENT_ID = (
    "KFP_TOKEN",
    "KFP_TOKEN_FILE",
    "KFP_COOKIE",
    "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID",
)
CREDENTIALS = (TOKEN, TOKEN_FILE, COOKIE, IAP_CLIENT_ID)
"""Environment variables with credentials; at most one may be set. Credentials are never arguments: those show in `ps`."""
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod finds its token for the API, https://www.kubeflow.org/docs/components/pipelines/user-guides/core-functions/connect-api/"""


def authenticate(configuration: kfp_server_api.Configuration, way: str) -> str:
    """Set up the credentials that the environment gives.

    Args:
        configuration: The client's configuration; it gets a hook that renews the token before every request.
        way: One of `connection.WAYS`; in-cluster, the pod's token is used where nothing else is set.

    Returns:
        The cookie to send, or "".

    Raises:
        ConfigurationError: Two places give credentials, or the one that does cannot be read or sent.
    """
    given = [name for name in CREDENTIALS if secret_variable(name)]
    if len(given) > 1:
        raise ConfigurationError(f"credentials must come from one place; got {' and '.join(given)}. Unset all but one")
    name = given[0] if given else ""
    value = secret_variable(name) if name else ""
    if name == COOKIE:
        return value
    pod_token = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or POD_TOKEN)
    if name == TOKEN_FILE:
        read = _file_reader(Path(value), TOKEN_FILE)
    elif name == IAP_CLIENT_ID:
        read = _identity_token_reader(value)
    elif way == "in-cluster" and not name and pod_token.exists():
        read = _file_reader(pod_token, "the pod's token")
    elif name == TOKEN:

        def read() -> str:
            return value
    else:
        return ""

    def refresh(target: kfp_server_api.Configuration) -> None:
        # Called before every request: tokens are renewed while a run of hours is watched.
        target.api_key["authorization"] = read()

    refresh(configuration)
    configuration.api_key_prefix["authorization"] = "Bearer"
    configuration.refresh_api_key_hook = refresh
    return ""


def _file_reader(path: Path, name: str) -> Callable[[], str]:
    def read() -> str:
        try:
            token = checked_secret(secret_file(path, name), name)
        except (FileNotFoundError, NotADirectoryError) as error:
            # The path is not shown: it may be a token, pasted into the wrong variable.
            raise ConfigurationError(f"{name} must be a readable file; got {error.strerror}. Write it") from None
        if not token:
            raise ConfigurationError(f"{name} must hold a token; got an empty file. Write it")
        return token

    return read


def _identity_token_reader(audience: str) -> Callable[[], str]:
    """Return a source of fresh ID tokens for an Identity-Aware Proxy: Google's last an hour, a run lasts longer."""
    import google.auth.credentials
    import google.auth.exceptions
    import google.auth.transport.requests
    from google.auth import external_account, impersonated_credentials
    from google.oauth2 import id_token

    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    request = google.auth.transport.requests.Request()

    def read() -> str:
        try:
            if not credentials.valid:
                credentials.refresh(request)
        except google.auth.exceptions.TransportError as error:
            raise UnavailableError(f"Google's token service must answer; got {error}. Try again") from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise ConfigurationError(f"Google credentials must be valid; got {error}. Log in again") from error
        return credentials.token

    check_google_key()
    try:
        # Scopes come afterwards: with them, default() asks the Resource Manager for the project, which nobody needs here.
        source = google.auth.credentials.with_scopes_if_required(google.auth.default()[0], scopes)
        if isinstance(source, external_account.Credentials) and source.service_account_email:
            # Workload identity federation, as in CI: the account it stands for mints the ID token.
            account = impersonated_credentials.Credentials(source, source.service_account_email, scopes)
            credentials = impersonated_credentials.IDTokenCredentials(account, audience, include_email=True)
        else:
            credentials = id_token.fetch_id_token_credentials(audience, request)
    except google.auth.exceptions.GoogleAuthError as error:
        raise ConfigurationError(
            f"{IAP_CLIENT_ID} needs the credentials of a Google service account; got {error}. Set"
            f" GOOGLE_APPLICATION_CREDENTIALS, or get an ID token for that audience and set {TOKEN_FILE}"
        ) from error
    return read
