"""Preflight asks the services around the cluster: the pipelines API, the store, the registry, the datasets' sources."""

import os
import re
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests

from components.buckets import BUCKET_STORES
from components.dataset_name import KAGGLE, object_name, parse_dataset, redacted
from components.errors import ConfigurationError, PermissionDeniedError, UnavailableError
from components.stores import check_store, open_store
from pipelines.images import image_name
from pipelines.kubeflow.connection import ENDPOINT, connect
from pipelines.preflight.findings import Check, Finding
from pipelines.profile import PROFILES_DIR, ClusterProfile
from pipelines.targets import TARGETS

SECONDS = 15.0
"""How long a store is asked."""
TIMEOUT = 8.0
"""How long a web server is asked."""
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)


def service_checks(profile: ClusterProfile, parameters: dict[str, Any], connection: dict[str, str]) -> dict[str, Check]:
    """Return the checks of the services by name."""
    return {
        "profile": partial(_examples, profile),
        "Kubeflow Pipelines": partial(_kubeflow, profile, connection),
        "store": partial(_store, profile, parameters["study_root"]),
        "images": partial(_images, profile),
        "sources": partial(_sources, profile, parameters["data_datasets"]),
    }


def _examples(profile: ClusterProfile) -> Iterator[Finding]:
    """Nothing is left of the values that the profile ships with."""
    for example in profile.examples():
        yield Finding("profile", f"the profile must name your own project and bucket; got {example}", "Replace it")


def _kubeflow(profile: ClusterProfile, connection: dict[str, str]) -> Iterator[Finding]:
    """The API answers, lets us in and is not older than what the profile asks for."""
    if endpoint := (os.environ.get(ENDPOINT) or profile.api) if connection["way"] in ("auto", "url") else "":
        _check_listening(endpoint)
    with connect(api=profile.api, namespace=profile.namespace, **connection) as api:
        answer = api.call(
            "ask for the version",
            api.client.healthzs.api_client.call_api,
            resource_path="/apis/v2beta1/healthz",
            method="GET",
            auth_settings=["Bearer"],
            response_type="object",
            _return_http_data_only=True,
        )
        # Not part of the v2beta1 model, but there: the server's own version.
        version = answer.get("tag_name", "")
        api.call(
            "list the pipelines",
            api.client.pipelines.pipeline_service_list_pipelines,
            namespace=api.namespace,
            page_size=1,
        )
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match and tuple(map(int, match.groups())) < tuple(map(int, profile.kfp_version.split(".")[:2])):
        problem = f"Kubeflow Pipelines must be at least {profile.kfp_version}; got {version}"
        yield Finding("Kubeflow Pipelines", problem, "Upgrade it: older ones drop node selectors and secrets silently")


def _check_listening(endpoint: str) -> None:
    """Fail at once where nobody listens; the client itself would try again for longer than preflight has."""
    address = urlsplit(endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), TIMEOUT).close()
    except OSError as error:
        raise UnavailableError(
            f"{endpoint} must answer; got no connection ({error}). Start the port-forward, or pass --connect port-forward"
        ) from error


def _store(profile: ClusterProfile, study_root: str) -> Iterator[Finding]:
    """The store takes, lists and gives back objects, and honours create-if-absent; one probe object comes and goes."""
    if hidden := _hidden_endpoint(profile, study_root):
        problem = f"the store's address must be known here to be checked; got {hidden}, a name inside the cluster"
        yield Finding("store", problem, "Nothing to do: the run's first step checks it", 0)
        return
    check_store(open_store(study_root, deadline_seconds=SECONDS))


def _hidden_endpoint(profile: ClusterProfile, address: str) -> str:
    """Return the S3 endpoint behind an address where only the cluster knows its name, else ""."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or profile.environment.get("AWS_ENDPOINT_URL", "")
    return endpoint if address.startswith("s3://") and endpoint and not _resolves(endpoint) else ""


def _resolves(url: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return False
    return True


def _images(profile: ClusterProfile) -> Iterator[Finding]:
    """Every image is in the registry under the name that the pipeline will ask for."""
    if profile.image_pull_policy == "Never":
        return
    session = requests.Session()
    for target in TARGETS:
        name = image_name(target, profile)
        host, _, rest = name.partition("/")
        repository, separator, reference = rest.partition("@")
        if not separator:
            repository, _, reference = rest.rpartition(":")
        scheme = "http" if re.match(r"(localhost|127\.)", host) else "https"
        url = f"{scheme}://{host}/v2/{repository}/manifests/{reference}"
        try:
            answer = _asked(session, url)
        except requests.RequestException as error:
            raise UnavailableError(
                f"registry {host} must answer; got {type(error).__name__}. Check its name and the network"
            ) from error
        if answer.status_code == 404:
            problem = f"image {name} must be in the registry; got nothing of that name"
            has_profile = (PROFILES_DIR / f"{profile.name}.yaml").is_file()
            yield Finding("images", problem, f"make images push CLUSTER={profile.name if has_profile else 'FILE.yaml'}")
        elif answer.status_code in (401, 403):
            # What the nodes may pull is not known here; only what this caller may see.
            problem = f"image {name} must be readable to be checked; got {answer.status_code}"
            yield Finding(
                "images", problem, f"Log in to {host}, and see that the nodes' account may pull", os.EX_NOPERM
            )
        elif not answer.ok:
            raise UnavailableError(f"registry {host} must answer; got status {answer.status_code}. Try again")


def _asked(session: requests.Session, url: str) -> requests.Response:
    """Ask for a manifest, with a token where the registry wants one."""
    ask = partial(session.head, url, headers={"Accept": MANIFESTS}, timeout=TIMEOUT, allow_redirects=True)
    answer = ask()
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("WWW-Authenticate", "")))
    if answer.status_code != 401 or "realm" not in challenge or session.auth:
        return answer
    if (urlsplit(url).hostname or "").endswith(("-docker.pkg.dev", "gcr.io")) and (token := _google_token()):
        session.auth = ("oauth2accesstoken", token)
        return ask()
    realm = challenge.pop("realm")
    if urlsplit(realm).scheme != "https" and not re.match(r"http://(localhost|127\.)", realm):
        return answer
    granted = session.get(realm, params=challenge, timeout=TIMEOUT)
    token = granted.json().get("token", "") if granted.ok else ""
    return ask(headers={"Accept": MANIFESTS, "Authorization": f"Bearer {token}"}) if token else answer


def _google_token() -> str:
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError:
        return ""
    return credentials.token


def _sources(profile: ClusterProfile, datasets: list[str]) -> Iterator[Finding]:
    """Every dataset's source can be reached; Kaggle's token is looked for among the secrets."""
    for entry in datasets:
        name, source = parse_dataset(entry)
        scheme = urlsplit(source).scheme
        if not source or source == KAGGLE:
            continue
        if hidden := _hidden_endpoint(profile, source):
            problem = (
                f"source of {name} must be reached from here to be checked; got {hidden}, a name inside the cluster"
            )
            yield Finding("sources", problem, "Nothing to do: the ingest step checks it", 0)
            continue
        try:
            if scheme in ("http", "https"):
                _check_web(name, source)
            elif scheme in BUCKET_STORES:
                _check_bucket(name, source)
        except (ConfigurationError, PermissionDeniedError, UnavailableError) as error:
            yield Finding.of("sources", error)


def _check_web(name: str, source: str) -> None:
    try:
        answer = requests.head(source, timeout=TIMEOUT, allow_redirects=True)
    except requests.RequestException as error:
        raise UnavailableError(
            f"source of {name} must answer; got {type(error).__name__} from {redacted(source)}. Check the address"
        ) from error
    if answer.status_code in (401, 403):
        raise PermissionDeniedError(
            f"source of {name} must be readable; got {answer.status_code} from {redacted(source)}. Ask its owner"
        )
    if not answer.ok:
        raise ConfigurationError(
            f"source of {name} must exist; got {answer.status_code} from {redacted(source)}. Check the address"
        )


def _check_bucket(name: str, source: str) -> None:
    parts = urlsplit(source)
    folder, _, last = object_name(source).rstrip("/").rpartition("/")
    if not open_store(f"{parts.scheme}://{parts.netloc}/{folder}", deadline_seconds=SECONDS).list(last):
        raise ConfigurationError(f"source of {name} must exist; got nothing at {redacted(source)}. Check the path")
