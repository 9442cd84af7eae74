"""Certificates, names and tokens: what lies before the first answer of a store is repeated or explained like an answer."""

import dataclasses
import datetime
import ipaddress
import json
import socket
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from components.errors import ConfigurationError, UnavailableError
from components.stores import bucket, open_store, retrying
from tests.fakes.faults import Answer, Fault, FaultyServer
from tests.fakes.gcs import FakeGcs

ENDPOINTS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL_S3"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Short time-outs and pauses, and keys for S3."""
    monkeypatch.setattr(bucket, "SECONDS", 2.0)
    monkeypatch.setattr(retrying, "LONGEST_SECONDS", 0.2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def make_server(scheme, **options):
    """Return a server of a provider."""
    from tests.fakes.s3 import FakeS3

    return (FakeGcs if scheme == "gs" else FakeS3)("bucket", **options)


@pytest.fixture
def make_certificate(tmp_path):
    """Writes a self-signed certificate with its key for loopback, or for another host, or of the past."""

    def make(name="127.0.0.1", days=1):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path / f"{name}-{days}.pem"
        private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(key.private_bytes(*private) + certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)

    return make


@pytest.mark.parametrize("scheme", ["gs", "s3"])
@pytest.mark.parametrize(
    ("name", "days", "is_known"), [("127.0.0.1", 1, False), ("10.0.0.1", 1, True), ("127.0.0.1", -1, True)]
)
def test_certificate(scheme, name, days, is_known, make_certificate, monkeypatch):
    """A certificate that is self-signed, of another host or expired ends the call at once as a setting to correct."""
    path = make_certificate(name, days)
    if is_known:
        monkeypatch.setenv({"gs": "REQUESTS_CA_BUNDLE", "s3": "AWS_CA_BUNDLE"}[scheme], path)
    with make_server(scheme, certificate=path) as server:
        monkeypatch.setenv(ENDPOINTS[scheme], server.url)
        start = time.monotonic()
        with pytest.raises(ConfigurationError, match="certificate that this machine trusts"):
            open_store(f"{scheme}://bucket/x").create("a", b"1")

    assert time.monotonic() - start < 20


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_trusted_certificate(scheme, make_certificate, monkeypatch):
    """With its CA known the store is used, and handshakes that are cut off are repeated."""
    path = make_certificate()
    monkeypatch.setenv({"gs": "REQUESTS_CA_BUNDLE", "s3": "AWS_CA_BUNDLE"}[scheme], path)
    with make_server(scheme, certificate=path) as server:
        monkeypatch.setenv(ENDPOINTS[scheme], server.url)
        store = open_store(f"{scheme}://bucket/x", deadline_seconds=30)
        server.go("hang up")
        with pytest.raises(UnavailableError):
            store.with_deadline(0.2).create("a", b"1")
        server.go("on")

        assert store.create("a", b"1")
        assert b"1" == store.read("a")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_plain_http_behind_https(scheme, monkeypatch):
    """A server that speaks no TLS is a wrong endpoint, not an outage."""
    with make_server(scheme) as server:
        monkeypatch.setenv(ENDPOINTS[scheme], server.url.replace("http:", "https:"))
        with pytest.raises(ConfigurationError, match="certificate that this machine trusts"):
            open_store(f"{scheme}://bucket/x", deadline_seconds=30).read("a")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_unknown_host(scheme, monkeypatch):
    """A name that is not found is asked for again: name servers of a cluster restart as well."""
    real, asked = socket.getaddrinfo, []

    def resolve(host, *arguments, **options):
        if host != "store.invalid":
            return real(host, *arguments, **options)
        asked.append(host)
        if len(asked) <= 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with make_server(scheme) as server:
        monkeypatch.setenv(ENDPOINTS[scheme], server.url.replace("127.0.0.1", "store.invalid"))

        assert open_store(f"{scheme}://bucket/x", deadline_seconds=30).create("a", b"1")
    assert len(asked) > 3


class Tokens(FaultyServer):
    """Gives tokens for Google's service accounts and keys as a container's endpoint does for AWS."""

    def answer(self, method, path, headers, body):  # noqa: ARG002
        expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        google = {"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}
        aws = {"AccessKeyId": "test", "SecretAccessKey": "test", "Token": "t", "Expiration": expires}
        return Answer(200, json.dumps(google | aws).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def tokens():
    """The token endpoint."""
    with Tokens() as server:
        yield server


@pytest.fixture
def token_store(tokens, monkeypatch, tmp_path):
    """Makes a store whose credentials come from the token endpoint."""
    servers = []

    def make(scheme):
        server = make_server(scheme)
        server.__enter__()
        servers.append(server)
        monkeypatch.setenv(ENDPOINTS[scheme], server.url)
        if scheme == "s3":
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
            monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{tokens.url}/keys")
            return open_store("s3://bucket/x", deadline_seconds=60)
        from google.cloud import storage
        from google.oauth2 import service_account

        from components.stores.gcs import Connection, GcsStore

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        info = {"client_email": "w@p.iam", "private_key": key.decode(), "token_uri": f"{tokens.url}/token"}
        credentials = service_account.Credentials.from_service_account_info(
            info, scopes=["https://www.googleapis.com/auth/devstorage.read_write"]
        )
        connection = Connection(storage.Client(project="p", credentials=credentials))
        return GcsStore("bucket", "x", deadline_seconds=60, connection=connection)

    yield make
    for server in servers:
        server.__exit__(None, None, None)


GONE = [Fault("status", 503), Fault("page"), Fault("reset")]


@pytest.mark.parametrize(
    ("scheme", "fault"),
    # AWS's client pauses for a second three times on its own, whatever the fault.
    [
        *(("gs", fault) for fault in [*GONE, Fault("status", 502), Fault("status", 429)]),
        *(("s3", fault) for fault in GONE),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind}-{value.status}",
)
def test_token_endpoint_in_trouble(scheme, fault, tokens, token_store):
    """A token endpoint that is busy, gone or answers with a page is asked again, like the store itself."""
    tokens.fail(dataclasses.replace(fault, times=5))  # more than its client asks on its own

    assert token_store(scheme).create("a", b"1")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_token_endpoint_that_refuses_connections(scheme, tokens, token_store):
    """A token endpoint that does not listen is waited for until the deadline."""
    store = token_store(scheme)
    tokens.go("refuse")
    with pytest.raises(UnavailableError, match="must succeed within"):
        store.with_deadline(0.5).create("a", b"1")
    tokens.go("on")

    assert store.create("a", b"1")


def test_refused_token(tokens, token_store):
    """A service account that is refused is a setting to correct, told at once."""
    refusal = json.dumps({"error": "invalid_grant", "error_description": "account not found"}).encode()
    tokens.fail(Fault("status", 400, times=-1, body=refusal))

    with pytest.raises(ConfigurationError, match="must be authorised"):
        token_store("gs").create("a", b"1")
