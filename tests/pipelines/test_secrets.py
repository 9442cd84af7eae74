"""No secret in anything that is written, whatever is wrong with it; a line break is trimmed or named with its variable."""

import json
import logging
from pathlib import Path

import pytest

from components.data.sources import kaggle
from components.notification.step import notify_step
from components.notification.webhook import WEBHOOK_VARIABLE
from pipelines.__main__ import run
from tests.fakes.files import FileServer
from tests.fakes.kfp_api import FakeKfpApi
from tests.fakes.s3 import FakeS3
from tests.fakes.webhook import Webhook

SECRET = "s3cr3t-Zx81qW"
OUTSIDE = f"{SECRET}\n"
INSIDE = f"{SECRET}\n{SECRET}"
KFP = (
    "KFP_TOKEN",
    "KFP_COOKIE",
    "KFP_TOKEN_FILE",
    "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
KAGGLE = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


class Written:
    """Everything that a command wrote, on the terminal and in files."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture) -> None:
        self._folder, self._capture = folder, capture

    def __call__(self) -> str:
        said = self._capture.readouterr()
        files = [path for path in self._folder.rglob("*") if path.is_file() and "secret-of-the-test" not in str(path)]
        return said.out + said.err + "".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.fixture
def written(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Written:
    """What is written below a home and a working directory of the test's own, and on the terminal."""
    for name in (*KFP, *AWS, *KAGGLE, WEBHOOK_VARIABLE, "STORAGE_EMULATOR_HOST", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kaggle, "SECRET_DIR", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    return Written(tmp_path, capfd)


@pytest.mark.parametrize("value", [SECRET, OUTSIDE, INSIDE], ids=["whole", "break at its end", "break inside"])
@pytest.mark.parametrize("name", KFP)
def test_credentials_of_kubeflow(name, value, written, kubeflow: FakeKfpApi, cluster, monkeypatch):
    """`submit` with refused credentials names the variable, and never shows what it holds."""
    kubeflow.token = "another"
    if name != "GOOGLE_APPLICATION_CREDENTIALS":
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    if name == "GOOGLE_APPLICATION_CREDENTIALS":
        monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "client")

    code = run(["submit", "--cluster", cluster, "--wait"])

    text = written()
    assert (78, 1) == (code, text.count("ERROR"))
    assert SECRET not in text
    assert name in text or value != INSIDE
    assert {} == kubeflow.runs


def test_cookie_and_token_are_trimmed(written, kubeflow: FakeKfpApi, cluster, monkeypatch, tmp_path):
    """A line break at the end, as `echo` and `kubectl create secret --from-file` leave it, is no part of a secret."""
    kubeflow.cookie = f"session={SECRET}"
    monkeypatch.setenv("KFP_COOKIE", f"session={SECRET}\r\n")
    assert 0 == run(["submit", "--cluster", cluster])
    monkeypatch.delenv("KFP_COOKIE")
    kubeflow.cookie, kubeflow.token = "", SECRET
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file = tmp_path / "secret-of-the-test"
        file.write_bytes(f"{SECRET}\r\n".encode(encoding))
        monkeypatch.setenv("KFP_TOKEN_FILE", str(file))
        assert 0 == run(["submit", "--cluster", cluster])

    assert SECRET not in written()


@pytest.mark.parametrize("value", [SECRET, OUTSIDE, INSIDE], ids=["whole", "break at its end", "break inside"])
@pytest.mark.parametrize("name", AWS)
def test_keys_of_s3(name, value, written, monkeypatch):
    """A key with a break inside ends at once with 78; one with a break at its end works, for stores and for sources."""
    others = dict.fromkeys(AWS[:2], "harmless") | {"AWS_DEFAULT_REGION": "eu-west-1\n"}
    for other, harmless in others.items():
        monkeypatch.setenv(other, harmless)
    monkeypatch.setenv(name, value)
    with FakeS3() as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{s3.url}\n")
        codes = [
            run(["study", "show", "s3://bucket/root/no-such-study"]),
            run(["ingest", "shoes=s3://bucket/no-such.zip", "--out", "out"]),
        ]
        asked = len(s3.requests)

    text = written()
    assert SECRET not in text
    if value == INSIDE:
        assert ([78, 78], 0, 2) == (codes, asked, text.count(f"{name} must be one line"))
    else:
        assert asked
        assert 78 not in codes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_DEFAULT_REGION", "eu\nwest"),
        ("AWS_DEFAULT_REGION", "eu west"),
        ("AWS_ENDPOINT_URL", "seaweedfs.kubeflow:8333"),
        ("AWS_ENDPOINT_URL", "//seaweedfs:8333"),
        ("AWS_ENDPOINT_URL_S3", f"http://user:{SECRET}@seaweedfs:8333"),
    ],
)
def test_settings_of_s3(name, value, written, monkeypatch):
    """A region or an address that cannot be one is a setting to correct: 78, in one line that names it."""
    monkeypatch.setenv(name, value)

    assert 78 == run(["study", "show", "s3://bucket/root/study"])
    assert 78 == run(["ingest", "shoes=s3://bucket/shoes.zip", "--out", "out"])
    text = written()
    assert (2, 2) == (text.count("ERROR"), text.count(f"{name} must be"))
    assert SECRET not in text


@pytest.mark.parametrize("value", [SECRET, OUTSIDE, INSIDE], ids=["whole", "break at its end", "break inside"])
@pytest.mark.parametrize("name", KAGGLE)
def test_token_of_kaggle(name, value, written, monkeypatch):
    """Kaggle's token is refused by the server or by us; neither shows it."""
    if name != "KAGGLE_API_TOKEN":
        monkeypatch.setenv("KAGGLE_USERNAME", "someone")
        monkeypatch.setenv("KAGGLE_KEY", "harmless")
    monkeypatch.setenv(name, value)
    with FileServer({}) as server:
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", server.url)
        code = run(["ingest", "fashion-products", "--out", "out"])

    text = written()
    assert SECRET not in text
    assert 1 == text.count("ERROR")
    assert (code == 78 and f"{name} must be one line" in text) if value == INSIDE else code


@pytest.mark.parametrize("value", [SECRET, OUTSIDE, INSIDE], ids=["whole", "break at its end", "break inside"])
@pytest.mark.parametrize("scheme", ["", "ftp://hook/", "http://[", "http://127.0.0.1:9/", "http://127.0.0.1:{}/"])
@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_address_of_the_webhook(status, scheme, value, written, monkeypatch, caplog):
    """The webhook's URL is a secret: whatever is wrong with it or with its receiver, nothing shows it, not even a debug log."""
    monkeypatch.setattr("components.notification.webhook.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("components.notification.step.log.parent.propagate", True)
    monkeypatch.setenv("FASHION_TUNING_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    with Webhook(f"/{SECRET}") as hook:
        hook.statuses = [status] * 3
        monkeypatch.setenv(WEBHOOK_VARIABLE, scheme.format(hook.url.rpartition(":")[2].partition("/")[0]) + value)
        notify_step("run", "studies", {"format": "slack", "link": "https://kubeflow.test/{run}"})

    text = written() + caplog.text
    assert SECRET not in text
    taken = status == 200 and "{}" in scheme and value != INSIDE
    assert taken == ("told the webhook" in text)
    assert taken != ("the webhook was not told" in text)


@pytest.mark.parametrize("value", [SECRET, f"http://127.0.0.1:9/{SECRET}"])
def test_address_of_a_local_runs_webhook(value, written, monkeypatch, caplog):
    """`run --notify` refuses what is no address before it starts, and shows no address that nobody listens at."""
    monkeypatch.setattr("components.notification.webhook.PAUSE_SECONDS", 0.0)
    monkeypatch.setenv(WEBHOOK_VARIABLE, value)
    Path("shoes").mkdir()
    code = run(["run", "--dataset", "shoes=shoes", "--out", "out", "--notify", "slack", "--debug"])

    text = written() + caplog.text
    assert SECRET not in text
    assert (78 if value == SECRET else 64, value != SECRET) == (code, "the webhook was not told" in text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_kaggle_json_in_any_encoding(encoding, monkeypatch, tmp_path):
    """A browser or an editor may have saved Kaggle's file with a byte order mark or in UTF-16."""
    (tmp_path / "kaggle.json").write_bytes(json.dumps({"username": "user", "key": f"{SECRET}\n"}).encode(encoding))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for name in KAGGLE:
        monkeypatch.delenv(name, raising=False)

    auth = kaggle.find_credentials()

    assert ("user", SECRET) == (auth._username, auth._key)
    assert SECRET not in repr(auth)


@pytest.mark.parametrize("name", ["KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT"])
@pytest.mark.usefixtures("kubeflow")
def test_password_in_an_address(name, written, cluster, monkeypatch):
    """An address with a user and a password is refused without showing them."""
    monkeypatch.setenv(name, f"https://user:{SECRET}@kubeflow.test")

    assert 78 == run(["submit", "--cluster", cluster])
    text = written()
    assert name in text
    assert SECRET not in text


@pytest.mark.usefixtures("kubeflow")
def test_password_of_a_proxy(written, cluster, monkeypatch):
    """A proxy that does not answer is reported without its password."""
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://kubeflow.test")
    monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setattr("pipelines.kubeflow.connection.IN_CLUSTER", "http://kubeflow.test")

    assert 69 == run(["submit", "--cluster", cluster])
    assert SECRET not in written()
