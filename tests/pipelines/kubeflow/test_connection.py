import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import kfp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from components.errors import ConfigurationError, PermissionDeniedError
from pipelines.kubeflow import connection as kfp_client
from pipelines.kubeflow.connection import connect, equals
from tests.fakes.kfp_api import FakeKfpApi, Fault
from tests.fakes.tls import write_certificate

ROOT = Path(__file__).resolve().parents[3]
RELAY = """#!{python}
import os, socket, sys, threading
arguments = sys.argv[1:]
open({log!r}, "a").write(" ".join(arguments) + " pid=" + str(os.getpid()) + "\\n")
if "--context" in arguments and arguments[arguments.index("--context") + 1] == "gone":
    print("E1126 memcache.go:265] couldn't get current server API group list", file=sys.stderr)
    sys.exit("error: context gone does not exist")
port = int(arguments[-1].split(":")[0])
listener = socket.create_server(("127.0.0.1", port))
print(f"Forwarding from 127.0.0.1:{{port}} -> 3000", flush=True)
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.close()
while True:
    inside, _ = listener.accept()
    outside = socket.create_connection(("127.0.0.1", {port}))
    for pair in ((inside, outside), (outside, inside)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@pytest.fixture
def api(kubeflow: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> FakeKfpApi:
    """The fake API, not yet named by the environment."""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    return kubeflow


@pytest.fixture
def kubectl(api: FakeKfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that forwards to the fake API; returns the file with what it was called with."""
    log = tmp_path / "kubectl.log"
    script = tmp_path / "bin" / "kubectl"
    script.parent.mkdir()
    port = api.url.rpartition(":")[2]
    script.write_text(RELAY.format(python=sys.executable, log=str(log), port=port))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return log


def list_pipelines(connection: kfp_client.Connection) -> list:
    """One authenticated question."""
    listing = connection.client.pipelines.pipeline_service_list_pipelines
    return connection.pages("list the pipelines", listing, "pipelines", namespace=connection.namespace)


def pids(log: Path) -> list[int]:
    """Processes that the kubectl ran as."""
    return [int(line.rpartition("=")[2]) for line in log.read_text().splitlines()]


def is_alive(pid: int) -> bool:
    """Whether a process is there."""
    return Path(f"/proc/{pid}").exists()


def test_it_is_the_real_client(api: FakeKfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection hands out kfp's own client, which leaves no trace in the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with connect(api=api.url) as connection:
        assert isinstance(connection.client, kfp.Client)
        assert [] == list_pipelines(connection)

    assert [] == list(tmp_path.rglob("*"))


def test_a_bearer_token_lets_in(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """KFP_TOKEN is sent with every request."""
    api.token = "secret"
    monkeypatch.setenv("KFP_TOKEN", "secret\n")

    with connect(api=api.url) as connection:
        assert [] == list_pipelines(connection)


def test_a_cookie_lets_in(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """KFP_COOKIE is sent with every request."""
    api.cookie = "authservice_session=abc"
    monkeypatch.setenv("KFP_COOKIE", "authservice_session=abc")

    with connect(api=api.url) as connection:
        assert [] == list_pipelines(connection)


def test_a_pod_uses_its_own_token(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Inside a pod the service's own name and the projected token are used, and a renewed token is read again."""
    token = tmp_path / "token"
    token.write_text("of-the-pod")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    named = kfp_client.IN_CLUSTER.format("kubeflow")
    monkeypatch.setattr(kfp_client, "IN_CLUSTER", api.url)
    api.token = "of-the-pod"

    with connect(api="http://localhost:8080") as connection:
        list_pipelines(connection)
        token.write_text("renewed")
        api.token = "renewed"
        assert [] == list_pipelines(connection)
    assert "http://ml-pipeline.kubeflow.svc.cluster.local:8888" == named


class _Google(BaseHTTPRequestHandler):
    """Google's token services: for a service account's key, and for CI's workload identity."""

    key: rsa.RSAPrivateKey
    issued: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/sts":
            assert "ci-identity" in asked
            answer = {"access_token": "federated", "token_type": "Bearer", "expires_in": 3600}
            answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        elif self.path.endswith(":generateAccessToken"):
            assert "Bearer federated" == self.headers["Authorization"]
            answer = {"accessToken": "account", "expireTime": "2099-01-01T00:00:00Z"}
        elif self.path.endswith(":generateIdToken"):
            assert "Bearer account" == self.headers["Authorization"]
            answer = {"token": self.id_token(json.loads(asked)["audience"])}
        else:
            assert "assertion=" in asked
            answer = {"id_token": self.id_token("iap-client")}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def id_token(self, audience: str) -> str:
        from google.auth import jwt
        from google.auth.crypt import RSASigner

        claims = {"aud": audience, "exp": int(time.time()) + 3600, "iat": int(time.time())}
        self.issued.append(jwt.encode(RSASigner(self.key), claims).decode())
        return self.issued[-1]


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict]]:
    """Google's token services on loopback, and the credential files of a service account and of CI that name them."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _Google.key, _Google.issued = key, []
    server = HTTPServer(("127.0.0.1", 0), _Google)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "subject").write_text("ci-identity")
    account = "ci@project.iam.gserviceaccount.com"
    monkeypatch.setattr("google.auth.iam._IAM_IDTOKEN_ENDPOINT", f"{url}/{{}}:generateIdToken")
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "iap-client")
    monkeypatch.setattr(
        FakeKfpApi,
        "token",
        property(lambda _: _Google.issued[-1] if _Google.issued else "none", lambda *_: None),
        raising=False,
    )
    yield {
        "service account": {
            "type": "service_account",
            "client_email": account,
            "project_id": "project",
            "private_key": pem.decode(),
            "token_uri": f"{url}/token",
        },
        "workload identity": {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/github",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/sts",
            "service_account_impersonation_url": f"{url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
            "credential_source": {"file": str(tmp_path / "subject")},
        },
    }
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["service account", "workload identity"])
def test_an_identity_aware_proxy_lets_in(
    api: FakeKfpApi, google: dict[str, dict], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """With IAP's client id, Google's token services turn the environment's identity into the bearer token, once."""
    (tmp_path / "credentials.json").write_text(json.dumps(google[kind]))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))

    with connect(api=api.url) as connection:
        list_pipelines(connection)
    assert [1, 2] == [len(_Google.issued), len(api.requests)]


def test_credentials_that_cannot_mint_an_id_token_say_what_to_do(
    api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A person's own Google login cannot pass IAP: a configuration error with the way out."""
    path = tmp_path / "user.json"
    path.write_text(
        json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"})
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "iap-client")

    with pytest.raises(ConfigurationError, match="KFP_TOKEN_FILE"), connect(api=api.url):
        pass


def test_a_port_forward_lives_as_long_as_the_connection(api: FakeKfpApi, kubectl: Path) -> None:
    """It is started with the context and namespace given, used, and ended."""
    with connect(way="port-forward", context="gke_project", installation="kubeflow") as connection:
        list_pipelines(connection)
        (pid,) = pids(kubectl)
        was_alive = is_alive(pid)

    said = kubectl.read_text()
    assert [True, False] == [was_alive, is_alive(pid)]
    assert said.startswith(
        "--context gke_project --namespace kubeflow port-forward --address 127.0.0.1 svc/ml-pipeline-ui "
    )
    assert ["GET /apis/v2beta1/healthz", "GET /apis/v2beta1/pipelines"] == api.requests


def test_a_port_forward_that_ends_is_started_again(api: FakeKfpApi, kubectl: Path) -> None:
    """Kubectl ends when the pod behind it is replaced; the connection goes on at the same address."""
    with connect(way="port-forward") as connection:
        endpoint = connection.endpoint
        os.kill(pids(kubectl)[0], signal.SIGKILL)
        connection.forward._process.wait()
        list_pipelines(connection)

        assert [endpoint, 2] == [connection.endpoint, len(pids(kubectl))]
    assert [False, False] == [is_alive(pid) for pid in pids(kubectl)]
    assert 2 == len(api.requests)


@pytest.mark.usefixtures("kubectl")
def test_a_port_forward_that_does_not_come_up_says_why(api: FakeKfpApi) -> None:
    """Kubectl's own last words are in the error, without what its library complained of before."""
    with (
        pytest.raises(ConfigurationError, match="got: error: context gone does not exist"),
        connect(way="port-forward", context="gone"),
    ):
        pass
    assert [] == api.requests


def test_a_port_forward_needs_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without kubectl it is a configuration error."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="kubectl must be on the PATH"), connect(way="port-forward"):
        pass


def test_sigterm_ends_the_command_and_its_port_forward(api: FakeKfpApi, kubectl: Path, cluster: str) -> None:
    """A terminated `submit --wait` says one line, exits with 143 and leaves no kubectl behind."""
    api.script = [("RUNNING", {})]
    command = [sys.executable, "-m", "pipelines", "submit", "--cluster", cluster, "--connect", "port-forward", "--wait"]
    polled = threading.Event()
    api.after_poll(1, polled.set)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert polled.wait(200)
    process.terminate()
    said = process.communicate(timeout=80)[1]

    assert 143 == process.returncode
    assert 1 == said.count("ERROR 143 submit: the command was asked to stop")
    assert [False] == [is_alive(pid) for pid in pids(kubectl)]


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({"KFP_TOKEN": "a", "KFP_COOKIE": "b"}, {"api": "http://localhost:1"}, "got KFP_TOKEN and KFP_COOKIE"),
        ({"KFP_TOKEN": "a"}, {"api": "http://kubeflow.test"}, "must be https where credentials are sent"),
        ({"KFP_TOKEN_FILE": "/nowhere/token"}, {"api": "http://localhost:1"}, "KFP_TOKEN_FILE must be a readable file"),
        ({"KFP_TOKEN_FILE": os.devnull}, {"api": "http://localhost:1"}, "must hold a token"),
        ({}, {"api": "kubeflow.test"}, "must be an http(s) URL"),
        ({}, {"way": "url"}, "must name the API's URL in `api`"),
    ],
)
def test_wrong_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, kubeflow: FakeKfpApi, environment: dict, arguments: dict, words: str
) -> None:
    """What is set wrongly is said before anything is sent."""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused, connect(**arguments):
        pass
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
    assert [] == kubeflow.requests


def test_a_missing_login_is_a_login_page_or_401(api: FakeKfpApi) -> None:
    """Behind an identity proxy the answer is a web page; without one it is 401. Both say what to set."""
    api.token = "secret"
    for api.login_page in (True, False):
        with pytest.raises(ConfigurationError, match="KFP_TOKEN"), connect(api=api.url):
            pass


def test_a_foreign_namespace_is_a_permission(api: FakeKfpApi) -> None:
    """403 is not 401: the caller is known and may not."""
    api.multi_user = True
    with connect(api=api.url, namespace="other") as connection, pytest.raises(PermissionDeniedError, match="got 403"):
        list_pipelines(connection)


def test_an_installation_with_namespaces_needs_one(api: FakeKfpApi) -> None:
    """A profile without a namespace cannot use it; without teams it must be the installation's."""
    api.multi_user = True
    with pytest.raises(ConfigurationError, match="must name a namespace"), connect(api=api.url):
        pass
    with connect(api=api.url, namespace="team") as connection:
        assert "team" == connection.namespace
    api.multi_user = False
    with connect(api=api.url, namespace="kubeflow") as connection:
        assert "" == connection.namespace
    with pytest.raises(ConfigurationError, match="must be kubeflow"), connect(api=api.url, namespace="team"):
        pass


def test_the_environment_goes_before_the_profile(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """CI sets the addresses; the link leads to the UI's own."""
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.url + "/")
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.test/_/pipeline")

    with connect(api="http://127.0.0.1:9") as connection:
        assert "https://kubeflow.test/_/pipeline/#/runs/details/1" == connection.link("runs", "1")


def test_an_answer_of_another_shape_is_version_skew(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that the generated client cannot read points at the versions, not at a defect here."""
    for answer in ({"pipelines": [{"created_at": "yesterday"}]}, {"pipelines": 3}):
        with connect(api=api.url) as connection, monkeypatch.context() as patch:
            patch.setattr(api, "handle", lambda *_, answer=answer: answer)
            with pytest.raises(ConfigurationError, match="Compare the versions"):
                list_pipelines(connection)


def test_unknown_fields_and_states_are_ignored(api: FakeKfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer server says more than this client knows."""
    answer = {"runs": [{"run_id": "1", "state": "HIBERNATED", "novelty": {"a": 1}}], "novelty": 2}
    with connect(api=api.url) as connection:
        monkeypatch.setattr(api, "handle", lambda *_: answer)
        (run,) = connection.pages("list the runs", connection.client.runs.run_service_list_runs, "runs")

    assert ("1", "HIBERNATED") == (run.run_id, run.state)


def test_a_retry_after_is_kept(api: FakeKfpApi) -> None:
    """The server's own pause is respected."""
    api.fail(Fault("status", status=429, contains="/pipelines", headers={"Retry-After": "1"}))
    with connect(api=api.url) as connection:
        started = time.monotonic()
        list_pipelines(connection)

    assert 0.9 <= time.monotonic() - started


def test_filters_reach_the_server_as_it_reads_them() -> None:
    """A name with quotes stays one value."""
    (predicate,) = json.loads(equals("display_name", 'a "b"'))["predicates"]

    assert {"operation": "EQUALS", "key": "display_name", "string_value": 'a "b"'} == predicate


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with a certificate of its own, and that certificate."""
    path, authority = write_certificate(tmp_path)

    class Healthz(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

    server = HTTPServer(("127.0.0.1", 0), Healthz)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"https://localhost:{server.server_port}", authority
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("api")
def test_certificates_are_checked(tls_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown certificate is refused with the remedy, and accepted where SSL_CERT_FILE names it."""
    url, authority = tls_server
    with pytest.raises(ConfigurationError, match="Set SSL_CERT_FILE"), connect(api=url):
        pass
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with connect(api=url) as connection:
        assert url == connection.endpoint
