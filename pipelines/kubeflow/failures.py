"""What a failed request to the Kubeflow Pipelines API means: one of the project's errors, with what to do."""

import json

import kfp_server_api
import urllib3

from components.errors import (
    ConfigurationError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    TryAgainError,
    UnavailableError,
)
from pipelines.kubeflow.credentials import CREDENTIALS


class ConflictError(TryAgainError):
    """Something of that name exists already, or two writers met."""


class MissingError(ConfigurationError):
    """What was asked for does not exist."""


class UnansweredError(UnavailableError):
    """No answer came, so whether the request took effect is not known."""


def from_status(what: str, error: kfp_server_api.ApiException) -> FashionTuningError:
    """Return the error that an answer with a status means."""
    status, said = error.status, _message(error)
    if not status:  # raised by the client itself while it read an answer
        return skew(what, said)
    if status in (400, 413, 422):
        return ParameterError(f"'{what}' must be acceptable to Kubeflow; got {status}: {said}. Correct it")
    if status == 401:
        return ConfigurationError(
            f"'{what}' needs valid credentials; got 401: {said}. Renew them; they come from one of {', '.join(CREDENTIALS)}"
        )
    if status == 403:
        return PermissionDeniedError(
            f"'{what}' must be allowed to you; got 403: {said}. Ask for access to the namespace"
        )
    if status == 404:
        return MissingError(
            f"'{what}' must name what exists; got 404: {said}. Check the URL, the namespace and the name"
        )
    if status == 409:
        return ConflictError(
            f"'{what}' met another change of the same thing; got 409: {said}. Run the same command again"
        )
    if status in (405, 501):
        return ConfigurationError(
            f"the server must know the v2beta1 API; got {status} for '{what}'. Upgrade Kubeflow Pipelines"
        )
    if status == 429:
        return TryAgainError(f"'{what}' was asked too often; got 429: {said}. Run the same command again in a minute")
    if status == 503:
        return UnavailableError(f"'{what}' needs a working API; got 503: {said}. Run the same command again")
    return UnansweredError(f"'{what}' needs a working API; got {status}: {said}. Run the same command again")


def skew(what: str, said: str) -> ConfigurationError:
    """Return the error for an answer that has another shape than the API's."""
    return ConfigurationError(
        f"the answer to '{what}' must be of the v2beta1 API; got {said}. Compare the versions of Kubeflow Pipelines and kfp"
    )


def _message(error: kfp_server_api.ApiException) -> str:
    try:
        text = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        text = str(error.body or error.reason or "")
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:150]} ... {text[-240:]}"


def from_transport(what: str, endpoint: str, error: urllib3.exceptions.HTTPError) -> FashionTuningError:
    """Return the error for a request that got no answer."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError):
        return ConfigurationError(
            f"{endpoint} must have a certificate that this machine trusts; got {reason}. Set SSL_CERT_FILE to the authority's"
            " certificates"
        )
    if isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
        return UnavailableError(
            f"{endpoint} must answer; got no connection. Check the URL, start a port-forward or pass --connect port-forward"
        )
    return UnansweredError(f"'{what}' must be answered by {endpoint}; got {reason}. Run the same command again")
