import json
from pathlib import Path

import pytest

from components import steps
from components.errors import ConfigurationError, UnavailableError
from pipelines.images import image_name, image_tag
from pipelines.local import containers
from pipelines.local.containers import check_engine, container_runner
from pipelines.profile import load_profile
from pipelines.targets import TARGETS


class Container:
    """A container that ends as planned and remembers what was asked of it."""

    def __init__(self, engine, options):
        self.engine, self.options, self.id, self.asked = engine, options, "0123456789abcdef", []

    def start(self):
        self.asked.append("start")
        if self.engine.on_start:
            self.engine.on_start()

    def logs(self, **_):
        return iter([b"a line\n"])

    def wait(self):
        assert "remove" not in self.asked, "the exit status is gone with the container"
        return {"StatusCode": self.engine.status}

    def remove(self, **_):
        self.asked.append("remove")

    def stop(self, timeout):
        self.asked.append(f"stop {timeout}")


class Engine:
    """The part of docker's client that is used here."""

    def __init__(self, *, rootless=False, runtimes=()):
        self.security = ["name=rootless"] if rootless else []
        self.runtimes = {key: {} for key in runtimes}
        self.tags, self.leftovers, self.made = [], [], []
        self.status, self.on_start = 0, None
        self.containers = self.images = self

    def ping(self):
        return True

    def close(self):
        pass

    def info(self):
        return {"SecurityOptions": self.security, "Runtimes": self.runtimes}

    def create(self, **options):
        self.made.append(Container(self, options))
        return self.made[-1]

    def list(self, **options):
        if options:
            return self.leftovers
        return [type("Image", (), {"tags": [tag]}) for tag in self.tags]


@pytest.fixture
def engine(monkeypatch):
    engine = Engine()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setattr(containers.docker, "from_env", lambda **_: engine)
    monkeypatch.setattr(containers.docker_task_handler, "run_docker_container", None)
    monkeypatch.setattr(containers.signal, "signal", lambda *_: None)
    monkeypatch.setattr(containers.os, "umask", lambda _: 0)
    containers._stopping.clear()
    return engine


@pytest.fixture
def out(tmp_path):
    """A run's folder with its parameters, and a dataset beside it."""
    out, source = tmp_path / "run", tmp_path / "catalogue"
    out.mkdir()
    source.mkdir()
    parameters = {
        "data_datasets": [f"mine={source}", f"fashion-mnist={out}/sample", "fashion-products"],
        "study_root": str(out / "studies"),
        "train_weights": "",
    }
    (out / "parameters.json").write_text(json.dumps({"parameters": parameters, "containers": True}))
    return out


def command(out: Path, function: str = "train_mlp", outputs: dict | None = None, source: str = "") -> list[str]:
    """What kfp runs in a step's container."""
    inputs = {"parameterValues": {"dataset": {"name": "fashion-mnist", "source": source, "version": "1"}}}
    content = {"inputs": inputs, "outputs": outputs or {"outputFile": str(out / "executor_output.json")}}
    container = getattr(steps, function).component_spec.implementation.container
    return [*container.command, *(part.replace("{{$}}", json.dumps(content)) for part in container.args)]


@pytest.mark.usefixtures("engine")
def test_steps_are_confined(out):
    """Steps get a read-only file system, no capabilities, no new privileges and no network."""
    options = container_runner(out).container_run_args

    assert (True, ["ALL"], ["no-new-privileges"], "none") == tuple(
        options[name] for name in ("read_only", "cap_drop", "security_opt", "network")
    )
    assert ["/tmp"] == list(options["tmpfs"])
    assert not options["user"].startswith("0:")


@pytest.mark.usefixtures("engine")
def test_only_the_run_is_writable(out):
    """The run's folder is mounted at its own path; other local sources are mounted too, but only to be read."""
    mounts = container_runner(out).container_run_args["mounts"]

    assert [(str(out), str(out), False), (str(out.parent / "catalogue"), str(out.parent / "catalogue"), True)] == [
        (mount["Source"], mount["Target"], bool(mount.get("ReadOnly"))) for mount in mounts
    ]


@pytest.mark.usefixtures("engine")
def test_caller_keeps_secrets_to_himself(out, monkeypatch):
    """Of the caller's environment only named variables reach the steps."""
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    environment = container_runner(out).container_run_args["environment"]

    assert "KAGGLE_KEY" not in environment
    assert "1" == environment["OMP_NUM_THREADS"]


@pytest.mark.usefixtures("engine")
def test_remote_studies_need_the_network(out):
    """Steps whose studies are in a bucket keep the network."""
    content = json.loads((out / "parameters.json").read_text())
    content["parameters"]["study_root"] = "gs://bucket/studies"
    (out / "parameters.json").write_text(json.dumps(content))

    assert "default" == container_runner(out).container_run_args["network"]


@pytest.mark.parametrize(
    ("function", "source", "network"),
    [
        ("ingest", "", "default"),
        ("ingest", "kaggle", "default"),
        ("ingest", "https://example.com/a.zip", "default"),
        ("ingest", "/data/a.zip", "none"),
        ("train_mlp", "", "none"),
        ("plan", "", "none"),
    ],
)
def test_only_an_ingest_that_fetches_has_a_network(engine, out, function, source, network):
    """The ingest step may fetch its source; with a local one it is cut off, as every other step is."""
    engine.on_start = lambda: (out / "executor_output.json").write_text("{}")

    status = containers._run_container(engine, "image", command(out, function, source=source), {}, network="none")

    assert 0 == status
    assert network == engine.made[0].options["network"]


@pytest.mark.parametrize("status", [0, 3, 137])
def test_exit_status_is_known_before_the_container_goes(engine, out, status):
    """A container that failed counts as failed, however fast it ended, and none is left behind."""
    engine.status = status
    engine.on_start = lambda: (out / "executor_output.json").write_text("{}")

    assert status == containers._run_container(engine, "image", command(out), {})
    assert ["start", "remove"] == engine.made[0].asked
    assert "auto_remove" not in engine.made[0].options
    assert not containers._running


def test_missing_output_fails_the_step(engine, out, capsys):
    """A step that ends well without the files it promised has failed, and the log says what is missing."""
    outputs = {
        "outputFile": str(out / "executor_output.json"),
        "parameters": {"n": {"outputFile": str(out / "n")}},
        "artifacts": {
            "model": {"artifacts": [{"type": {"schemaTitle": "system.Model"}, "uri": str(out / "model")}]},
        },
    }
    engine.on_start = lambda: (out / "executor_output.json").write_text("{}")

    assert 1 == containers._run_container(engine, "image", command(out, outputs=outputs), {})
    assert f"must have written {out / 'model'}; got nothing" in capsys.readouterr().out


def test_broken_engine_leaves_no_container(engine, out):
    """A container that cannot be started is removed all the same."""

    def fail():
        raise RuntimeError("no such runtime")

    engine.on_start = fail

    with pytest.raises(RuntimeError):
        containers._run_container(engine, "image", command(out), {})
    assert ["start", "remove"] == engine.made[0].asked


def test_leftovers_of_a_killed_run_are_removed(engine, out):
    """Containers of the same run that outlived it are removed before it goes on."""
    engine.leftovers = [Container(engine, {})]

    container_runner(out)

    assert ["remove"] == engine.leftovers[0].asked


def test_stopping_ends_running_containers(engine, out, monkeypatch):
    """A run that is stopped asks its containers to stop, starts no more, and leaves with 143."""
    left = []
    monkeypatch.setattr(containers.os, "_exit", left.append)
    container = Container(engine, {})
    monkeypatch.setattr(containers, "_running", {container.id: container})

    containers._stop_all(15, None)

    assert ["stop 10", "remove"] == container.asked
    assert [143] == left
    assert 1 == containers._run_container(engine, "image", command(out), {})
    assert [] == engine.made


def test_rootless_engine_maps_root_to_the_caller(engine, out):
    """In a rootless engine, user 0 of the container is the caller outside, who owns the folder."""
    engine.security = ["name=rootless"]

    assert "0:0" == container_runner(out).container_run_args["user"]


def test_caller_owns_what_the_steps_write(monkeypatch, engine, out):
    """With a rootful engine the steps run as the caller; for root, as a user who may write the folder."""
    monkeypatch.setattr(containers.os, "getuid", lambda: 1000)
    monkeypatch.setattr(containers.os, "getgid", lambda: 1001)
    assert "1000:1001" == containers._user(engine, out)

    monkeypatch.setattr(containers.os, "getuid", lambda: 0)
    assert "65532:65532" == containers._user(engine, out)
    assert 0o777 == out.stat().st_mode & 0o777


@pytest.mark.parametrize(("runtimes", "expected"), [((), False), (("nvidia", "runc"), True)])
def test_gpus_are_given_where_the_engine_has_them(engine, out, runtimes, expected):
    """Steps get all GPUs of the machine where the engine has NVIDIA's runtime."""
    engine.runtimes = {key: {} for key in runtimes}

    assert expected is ("device_requests" in container_runner(out).container_run_args)


def test_missing_images_are_named_before_the_start(engine, out, monkeypatch):
    """A run in containers begins only where all images are there; the message says how to make them."""
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    image_tag.cache_clear()
    names = [image_name(target, load_profile("local")) for target in TARGETS]
    engine.tags = names[:2]

    with pytest.raises(
        ConfigurationError, match=r"got no localhost/fashion-tuning/torch:0123456789ab\. Run: make images CLUSTER=local"
    ):
        check_engine(out)
    engine.tags = names
    check_engine(out)
    image_tag.cache_clear()


def test_silent_engine_is_reported(out, monkeypatch):
    """Without an engine that answers, the message says what to do."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{out}/nothing.sock")

    with pytest.raises(UnavailableError, match=r"a container engine must answer; got .* Start docker, install podman"):
        check_engine(out)
