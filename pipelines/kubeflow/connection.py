"""A connection to the Kubeflow Pipelines API: how to reach it, who one is there, and what its failures mean.

`connect` gives the real kfp client with three things it lacks: every request has a deadline, what may be repeated is
repeated, and every failure is one of the errors of `components/errors.py`.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import kfp
import kfp_server_api
import urllib3

from components.errors import (
    ConfigurationError,
    FashionTuningError,
    TryAgainError,
    UnavailableError,
)
from pipelines.kubeflow.credentials import CREDENTIALS, authenticate
from pipelines.kubeflow.failures import ConflictError, UnansweredError, from_status, from_transport, skew
from pipelines.kubeflow.port_forward import SERVICE, PortForward

log = logging.getLogger(__name__)

ENDPOINT, UI_ENDPOINT = "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT"
WAYS = ("auto", "url", "in-cluster", "port-forward")
IN_CLUSTER = "http://ml-pipeline.{}.svc.cluster.local:8888"
LATER_PORT = 8080
LATER_UI = f"http://127.0.0.1:{LATER_PORT}"
"""Where a person finds the UI who opens a port-forward."""
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and to wait for an answer."""
BACKOFF_SECONDS = 0.5
PATIENCE_SECONDS = 15.0
"""How long after its first failure a request is sent again."""
REPEATED = {429, 500, 502, 503, 504}
"""Answers after which a request without an effect of its own is sent again."""

T = TypeVar("T")


class _Patience(urllib3.Retry):
    """Repeats a request for `PATIENCE_SECONDS` and not longer, however slowly each failure comes."""

    _deadline = 0.0

    def new(self, **changes: Any) -> "_Patience":
        other = super().new(**changes)
        other._deadline = self._deadline or time.monotonic() + PATIENCE_SECONDS
        return other

    def is_exhausted(self) -> bool:
        return super().is_exhausted() or time.monotonic() >= self._deadline


class _RestClient(kfp_server_api.rest.RESTClientObject):
    """Adds a deadline to every request, and takes nothing but JSON for an answer."""

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or TIMEOUT
        response = super().request(method, url, *args, **options)
        # The generated client takes any text for an empty object: a login page would read as "there is no schedule".
        kind = response.urllib3_response.headers.get("content-type", "")
        if "html" in kind:
            where = urlsplit(url).netloc
            raise ConfigurationError(
                f"{where} must answer as the Kubeflow Pipelines API; got a web page, most likely a login page. Correct the"
                f" URL, or set one of {', '.join(CREDENTIALS)}"
            )
        try:
            json.loads(response.data or b"{}")
        except ValueError:
            raise UnavailableError(
                f"the answer to {method} {urlsplit(url).path} must be JSON; got {response.data[:80]!r}. Try again"
            ) from None
        return response


class _KfpClient(kfp.Client):
    """The real client, configured by us alone: it neither reads nor writes ~/.config/kfp."""

    _LOCAL_KFP_CONTEXT = ""

    def __init__(self, configuration: kfp_server_api.Configuration, cookie: str, ui_host: str) -> None:
        self._configuration = configuration
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "only works with v2.0.0-beta.2 and later"
            super().__init__(host=configuration.host, cookies=cookie, ui_host=ui_host)
        self._run_api.api_client.rest_client = _RestClient(configuration)

    def _load_config(self, *_: Any) -> kfp_server_api.Configuration:
        return self._configuration

    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:  # noqa: ARG002
        # The base class asks while it is built, five times with pauses and tracebacks; `connect` asks once, later.
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


@dataclass
class Connection:
    """An open connection.

    Attributes:
        client: The real kfp client; its `pipelines`, `pipeline_uploads`, `experiments`, `runs` and `recurring_runs`.
        endpoint: URL of the API.
        ui: URL of the Kubeflow UI.
        namespace: Namespace of the caller's resources; empty on an installation without namespaces.
        forward: The port-forward this connection goes through, if any.
        reach: A command that must run for links to the UI to work; "" where they do without.
        workflows: Namespace of the runs' own pods.
        context: Context of the kubeconfig; empty for the current one.
    """

    client: kfp.Client
    endpoint: str
    ui: str
    namespace: str = ""
    forward: PortForward | None = None
    reach: str = ""
    workflows: str = ""
    context: str = ""

    def call(self, what: str, function: Callable[..., T], **arguments: Any) -> T:
        """Call the API once; every failure becomes one of our errors.

        Args:
            what: For the error's text, for example "list the runs".
            function: A method of the generated API.
            **arguments: Arguments of that method.

        Raises:
            FashionTuningError: See the table in docs/ci.md.
        """
        if self.forward:
            self.forward.ensure()
        try:
            return function(**arguments)
        except FashionTuningError:
            raise
        except kfp_server_api.ApiException as error:
            raise from_status(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise from_transport(what, self.endpoint, error) from error
        except (ValueError, TypeError, AttributeError) as error:
            # The generated client met an answer it has no shape for.
            raise skew(what, f"{type(error).__name__}: {error}") from error

    def create(self, what: str, make: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Create exactly one: where the answer is lost or says that it exists already, look for it.

        Args:
            what: For the error's text, for example "start the run".
            make: Sends the request.
            find: Returns what the request would have made, or None.

        Raises:
            TryAgainError: No answer came and nothing is there; it may still appear.
            FashionTuningError: Each kind that `call` raises.
        """
        for attempt in range(4):
            try:
                return make()
            except (ConflictError, UnavailableError, TryAgainError) as error:
                existing = None
                for look in range(3 if isinstance(error, UnansweredError) else 1):
                    time.sleep(BACKOFF_SECONDS * 2 ** (attempt + look))
                    if existing := find():
                        return existing
                if isinstance(error, UnansweredError):
                    raise TryAgainError(
                        f"'{what}' got no answer, and nothing has appeared yet: {error}. Run the same command again; it goes on"
                        " with what it finds"
                    ) from error
                last = error
        raise last

    def pages(self, what: str, function: Callable[..., Any], rows: str, **arguments: Any) -> list[Any]:
        """Return the rows of all pages of a listing."""
        items: list[Any] = []
        token = ""
        while True:
            page = self.call(what, function, page_size=100, page_token=token, **arguments)
            items += getattr(page, rows) or []
            token = page.next_page_token or ""
            if not token:
                return items

    def link(self, kind: str, resource_id: str) -> str:
        """Return the page of a run, recurring run or pipeline in the Kubeflow UI; see `reach`."""
        return f"{self.ui}/#/{kind}/details/{resource_id}"

    def see(self, kind: str, resource_id: str) -> str:
        """Return how a person gets to that page: its address, with the command that opens the way to it."""
        link = self.link(kind, resource_id)
        return f"{link} while this runs: {self.reach}" if self.reach else link


def equals(key: str, value: str) -> str:
    """Return the API's filter for `key == value`."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


@contextmanager
def connect(
    *,
    api: str = "",
    namespace: str = "",
    way: str = "auto",
    context: str = "",
    installation: str = "kubeflow",
) -> Iterator[Connection]:
    """Connect to the API, and check that it is one and lets us in.

    Args:
        api: URL of the API; the environment's KF_PIPELINES_ENDPOINT goes before it.
        namespace: Namespace of the caller's resources, where the installation has namespaces.
        way: One of `WAYS`. `auto` is the URL where one is known, else in-cluster inside a pod, else port-forward.
        context: Context of the kubeconfig, for `port-forward`; empty for the current one.
        installation: Namespace that Kubeflow Pipelines itself runs in.

    Yields:
        The connection; a port-forward ends with it.

    Raises:
        FashionTuningError: It cannot be reached, does not let us in or is something else.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # announces every retry
    endpoint = os.environ.get(ENDPOINT) or api
    in_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    if way == "auto":
        # A profile's localhost is somebody's port-forward; a pod has none.
        usable = endpoint and not (
            in_pod and _is_loopback(urlsplit(endpoint).hostname or "") and ENDPOINT not in os.environ
        )
        way = "url" if usable else "in-cluster" if in_pod else "port-forward"
    with ExitStack() as stack:
        forward = None
        if way == "in-cluster":
            endpoint = IN_CLUSTER.format(installation)
        elif way == "port-forward":
            forward = stack.enter_context(PortForward(installation, context))
            endpoint = forward.url
        elif not endpoint:
            raise ConfigurationError(
                f"the cluster profile must name the API's URL in `api`; got ''. Set it or {ENDPOINT}"
            )
        connection = _open(
            _checked_url(ENDPOINT if ENDPOINT in os.environ else "the API's address", endpoint), way, forward
        )
        if UI_ENDPOINT not in os.environ and way != "url":
            # A forwarded port ends with the command, and the service's name is known inside the cluster only.
            chosen = f"--context {context} " if context else ""
            connection.ui = LATER_UI
            connection.reach = f"kubectl {chosen}-n {installation} port-forward {SERVICE} {LATER_PORT}:80"
        healthz = connection.call(
            "ask whether the API is healthy", connection.client.healthzs.healthz_service_get_healthz
        )
        if healthz.multi_user and not namespace:
            raise ConfigurationError(
                "the cluster profile must name a namespace: this Kubeflow has one per team; got ''. Set it"
            )
        if not healthz.multi_user and namespace not in ("", installation):
            raise ConfigurationError(
                f"the cluster profile's namespace must be {installation}, where this Kubeflow Pipelines has everything; got"
                f" {namespace}. Correct it, or pass --installation {namespace} where it is installed there"
            )
        connection.namespace = namespace if healthz.multi_user else ""
        connection.workflows, connection.context = connection.namespace or installation, context
        yield connection


def _checked_url(name: str, url: str) -> str:
    """Return an address without a slash at its end.

    Raises:
        ConfigurationError: It is no http(s) URL, or it carries a password, which every link and error would show.
    """
    url = url.strip()
    try:
        usable = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        usable = False
    if "@" in url:
        raise ConfigurationError(
            f"{name} must not carry a user or password; got one. Take it out, and set one of {', '.join(CREDENTIALS)}"
        )
    if not (usable and url.isprintable()):
        raise ConfigurationError(f"{name} must be an http(s) URL; got {url!r}. Correct it")
    return url.rstrip("/")


def _open(endpoint: str, way: str, forward: PortForward | None) -> Connection:
    address = urlsplit(endpoint)
    host = address.hostname or ""
    configuration = kfp_server_api.Configuration(host=endpoint)
    cookie = authenticate(configuration, way)
    is_signed_in = bool(cookie or configuration.refresh_api_key_hook)
    if is_signed_in and address.scheme == "http" and way != "in-cluster" and not _is_loopback(host):
        raise ConfigurationError(f"the API's URL must be https where credentials are sent; got {endpoint}. Correct it")
    proxy = getproxies().get(address.scheme)
    if proxy and not _is_loopback(host) and not proxy_bypass(host):
        configuration.proxy = proxy
    configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
    configuration.retries = _Patience(
        total=6,
        connect=4,
        read=3,
        redirect=3,
        status=5,
        allowed_methods={"GET", "DELETE"},
        status_forcelist=REPEATED,
        backoff_factor=BACKOFF_SECONDS,
        backoff_max=20,
        retry_after_max=60,
        raise_on_status=False,
    )
    ui = _checked_url(UI_ENDPOINT, os.environ.get(UI_ENDPOINT) or endpoint)
    return Connection(client=_KfpClient(configuration, cookie, ui), endpoint=endpoint, ui=ui, forward=forward)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
