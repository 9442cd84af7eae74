"""The end of a run is told once, in the form that the receiver reads; a dead webhook fails nothing."""

import json
import os
import ssl
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from components.errors import UnavailableError
from components.evaluation.kept import SUMMARY, result_key
from components.notification import step as notify
from components.notification import webhook
from components.notification.event import make_event
from components.notification.templates import FORMATS, body_of
from components.notification.workflow import FailedNode
from components.runtime import EVENTS_VARIABLE
from components.stores import open_store
from pipelines.compilation import compile_pipeline
from pipelines.driver_rules import driver_problems
from pipelines.local.notify import notifying
from pipelines.presets import default_parameters
from pipelines.profile import parse_profile
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.tls import write_certificate
from tests.fakes.webhook import Webhook
from tests.pipelines.policy import policy_problems

ROOT = Path(__file__).resolve().parents[2]
RUN = "6b0e8f5c-run"
VERDICT = "On shoes <&> more, ResNet18 is better by 1.2 points"
APPROACHES = {
    name: {"accuracy": accuracy, "device_seconds": {"search": 60.0, "train": 12.25}}
    for name, accuracy in (("mlp", 0.81), ("resnet18", 0.82))
}
SUMMARY_OF_A_RUN = {
    "schema": 1,
    "datasets": {
        "shoes": {
            "data": {"drift": ["12.0% of the images moved between classes"]},
            "approaches": APPROACHES,
            "comparison": {"winner": "resnet18", "verdict": VERDICT},
            "champion": {"decision": "better", "version": 3, "reason": "it is better by 1.0 points"},
        }
    },
}
FAILED = make_event(
    run_id=RUN,
    study_root="gs://bucket/root",
    state="failed",
    failures=[FailedNode("train-mlp", "ERROR 75 train-mlp shoes: the device must work; got none. Start again")],
    link=f"https://kubeflow.test/#/runs/details/{RUN}",
)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch):
    """A receiver whose address the step is given; nobody waits long."""
    monkeypatch.setattr(webhook, "PAUSE_SECONDS", 0.01)
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    monkeypatch.delenv("FASHION_TUNING_RUN_ID", raising=False)
    with Webhook() as server:
        monkeypatch.setenv(webhook.WEBHOOK_VARIABLE, f"{server.url}\n")
        yield server


def finished(root: Path) -> str:
    """Keep the summary of a run as its last step does."""
    open_store(str(root)).create(result_key(RUN, SUMMARY), json.dumps(SUMMARY_OF_A_RUN).encode())
    return str(root)


def test_finished_run_is_a_cloud_event(hook, tmp_path):
    """Verdict, decision, cost, drift and report, in an event with all that CloudEvents 1.0 requires."""
    root = finished(tmp_path)

    notify.notify_step(RUN, root, {"format": "cloudevents", "link": "https://kubeflow.test/#/runs/details/{run}"})

    (event,) = hook.bodies
    assert ["application/cloudevents+json"] == hook.content_types
    assert ("1.0", f"{RUN}-succeeded", root, "fashion-tuning.run.succeeded") == tuple(
        event[key] for key in ("specversion", "id", "source", "type")
    )
    assert datetime.fromisoformat(event["time"]).tzinfo
    assert f"https://kubeflow.test/#/runs/details/{RUN}" == event["data"]["link"]
    assert f"{root}/runs/{RUN}/report.html" == event["data"]["report"]
    assert {"device_seconds": 144.5} == event["data"]["cost"]
    told = event["data"]["datasets"]["shoes"]
    assert (VERDICT, "better", 3, ["12.0% of the images moved between classes"]) == tuple(
        told[key] for key in ("verdict", "decision", "champion_version", "drift")
    )


def test_step_that_runs_again_tells_nothing_new(hook, tmp_path):
    """One message per run, whatever becomes of the step's pod after it was sent."""
    root = finished(tmp_path)

    for _ in range(2):
        notify.notify_step(RUN, root, {})

    assert 1 == len(hook.bodies)


def test_failed_run_names_its_step(hook, tmp_path, monkeypatch):
    """Without the last step's summary the run has failed, and the message says in which step and why."""
    events = tmp_path / "events.jsonl"
    events.write_text(
        '{"event": "started", "step": "ingest shoes", "time": 1}\n'
        '{"event": "failed", "step": "ingest shoes", "time": 2, "code": 65, "message": "no image can be read"}\n'
    )
    monkeypatch.setenv(EVENTS_VARIABLE, str(events))

    notify.notify_step(RUN, str(tmp_path / "root"), {"format": "cloudevents"})

    (event,) = hook.bodies
    assert ("failed", f"{RUN}-failed") == (event["data"]["state"], event["id"])
    assert [{"step": "ingest shoes", "message": "ERROR 65 no image can be read"}] == event["data"]["failures"]


def test_unreadable_store_is_no_failed_run(hook):
    """Where the results cannot be read, the message says that and claims nothing."""
    notify.notify_step(RUN, "ftp://bucket/root", {"format": "cloudevents"})

    (event,) = hook.bodies
    assert "ended" == event["data"]["state"]


def test_slack_reads_text(hook, tmp_path):
    """One text; what has a meaning to Slack is escaped."""
    notify.notify_step(RUN, finished(tmp_path), {"format": "slack"})

    (body,) = hook.bodies
    assert {"text", "mrkdwn"} == set(body)
    assert "On shoes &lt;&amp;&gt; more, ResNet18 is better" in body["text"]
    assert "Cost: 2 min 24 s of device time" in body["text"]


def test_teams_reads_an_adaptive_card():
    """The failed step and its last word are facts of a card with a button to the run."""
    body = body_of(FAILED, "teams")

    (attachment,) = body["attachments"]
    assert ("message", "application/vnd.microsoft.card.adaptive") == (body["type"], attachment["contentType"])
    title, facts = attachment["content"]["body"]
    assert "Attention" == title["color"]
    assert {"title": "Failed in train-mlp", "value": FAILED["data"]["failures"][0]["message"]} == facts["facts"][0]
    assert FAILED["data"]["link"] == attachment["content"]["actions"][0]["url"]


def test_failed_step_is_read_from_kubernetes(hook, tmp_path, monkeypatch):
    """On a cluster the run's workflow has the last word of the step, also of one whose memory was too small.

    Python 3.13 is strict by itself, and refuses the authority of many a cluster, which does not say what its key may do.
    """
    contexts, create = [], ssl.create_default_context

    def strict(**named):
        contexts.append(create(**named))
        contexts[-1].verify_flags |= ssl.VERIFY_X509_STRICT
        return contexts[-1]

    monkeypatch.setattr(ssl, "create_default_context", strict)
    certificate, authority = write_certificate(tmp_path)
    for name, text in (("namespace", "kubeflow"), ("token", "a-token\n"), ("ca.crt", authority.read_text())):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(notify, "ACCOUNT", tmp_path)
    killed = {"id": "a", "type": "Pod", "phase": "Failed", "boundaryID": "b", "templateName": "system-container-impl"}
    nodes = {
        "a": killed | {"displayName": "executor", "message": "OOMKilled (exit code 137)"},
        "b": {"id": "b", "type": "DAG", "phase": "Failed", "displayName": "train-mlp(0)"},
    }
    with FakeKubernetes(certificate=certificate) as kubernetes:
        kubernetes.token = "a-token"
        kubernetes.objects["/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"] = {
            "items": [{"metadata": {"name": "x"}, "status": {"nodes": nodes}}]
        }
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", kubernetes.host.rpartition(":")[2])
        notify.notify_step(RUN, str(tmp_path / "root"), {"format": "cloudevents"})

    (event,) = hook.bodies
    assert [{"step": "train-mlp", "message": "OOMKilled (exit code 137)"}] == event["data"]["failures"]
    assert [False] == [bool(context.verify_flags & ssl.VERIFY_X509_STRICT) for context in contexts]
    assert contexts[0].check_hostname


@pytest.mark.parametrize(
    ("statuses", "sent", "warned"),
    [([503, 429], 3, ""), ([500] * 3, 3, "got 500"), ([404], 1, "got 404"), ([302], 1, "got 302")],
    ids=["passing", "down", "gone", "redirection"],
)
def test_refusals_fail_nothing(hook, tmp_path, caplog, monkeypatch, statuses, sent, warned):
    """What may pass is tried again; whatever remains is a warning without the address."""
    monkeypatch.setattr("components.notification.step.log.parent.propagate", True)
    hook.statuses = statuses

    notify.notify_step(RUN, finished(tmp_path), {})

    assert sent == len(hook.bodies)
    assert bool(warned) == ("the webhook was not told" in caplog.text)
    assert warned in caplog.text
    assert hook.path not in caplog.text


def test_silent_webhook_costs_bounded_time(hook, tmp_path, monkeypatch, caplog):
    """A receiver that never answers, even one that drips, is left after the step's own time."""
    monkeypatch.setattr("components.notification.step.log.parent.propagate", True)
    monkeypatch.setattr(notify, "TOTAL_SECONDS", 0.3)
    hook.stall_seconds = 5.0
    began = time.monotonic()

    notify.notify_step(RUN, finished(tmp_path), {})

    assert time.monotonic() - began < 2
    assert "took more than 0.3 s" in caplog.text


def test_without_an_address_nothing_is_sent(tmp_path, monkeypatch, caplog):
    """A missing secret is a warning that names the variable."""
    monkeypatch.setattr("components.notification.step.log.parent.propagate", True)
    monkeypatch.delenv(webhook.WEBHOOK_VARIABLE, raising=False)

    notify.notify_step(RUN, finished(tmp_path), {})

    assert webhook.WEBHOOK_VARIABLE in caplog.text


PROFILE = {
    "api": "http://127.0.0.1:9",
    "namespace": "kubeflow",
    "registry": "registry.test/fashion-tuning",
    "study_root": "gs://bucket/root",
    "notify": {"secret": "hook", "format": "teams", "link": "https://k/#/runs/details/{run}"},
    "steps": {"default": {"cpu": "1"}},
}


def test_profile_puts_the_step_around_the_graph(tmp_path, monkeypatch):
    """The exit step reads the secret, and the driver's rules and the policy accept it; without it nothing is compiled."""
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    profile = parse_profile("cluster", PROFILE, "cluster.yaml")
    path = compile_pipeline(tmp_path / "with.yaml", profile)
    documents = list(yaml.safe_load_all(path.read_text()))
    told = documents[0]["root"]["dag"]["tasks"]["notify"]
    pod = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-notify"]

    assert ([], []) == (driver_problems(documents), policy_problems(documents, profile))
    assert ("ALL_UPSTREAM_TASKS_COMPLETED", ["exit-handler-1"]) == (
        told["triggerPolicy"]["strategy"],
        told["dependentTasks"],
    )
    (secret,) = pod["secretAsEnv"]
    assert ("hook", True, webhook.WEBHOOK_VARIABLE) == (
        secret["secretName"],
        secret["optional"],
        secret["keyToEnv"][0]["envVar"],
    )
    without = parse_profile("cluster", {k: v for k, v in PROFILE.items() if k != "notify"}, "cluster.yaml")
    assert "notify" not in compile_pipeline(tmp_path / "without.yaml", without).read_text()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({}, "notify.secret must be given"),
        ({"secret": "Hook!"}, "notify.secret must be the name of a Kubernetes secret"),
        ({"secret": "hook", "format": "mail"}, f"notify.format must be {', '.join(FORMATS)}; got 'mail'"),
        ({"secret": "hook", "url": "https://x"}, "notify.url must be a known field"),
        ("hook", "notify must be a mapping"),
    ],
)
def test_wrong_profile(entry, problem):
    """Each mistake is named with its field."""
    with pytest.raises(Exception, match=problem.replace("(", ".")):
        parse_profile("cluster", PROFILE | {"notify": entry}, "cluster.yaml")


LOCAL = """
import sys
from pathlib import Path
from pipelines.compilation import compile_pipeline
from pipelines.local.process import main
from pipelines.profile import LOCAL, ClusterProfile, Notify
out = Path(sys.argv[1])
compile_pipeline(out / "pipeline.yaml", ClusterProfile(name=LOCAL, notify=Notify(secret="hook")))
main(out)
"""


def test_exit_step_runs_in_kfp_local(hook, tmp_path):
    """The graph of a profile with `notify`, run by kfp.local with a plan that fails, sends exactly one message."""
    parameters = default_parameters(str(tmp_path / "studies")) | {"data_datasets": ["shoes=/no/such/folder"]}
    (tmp_path / "parameters.json").write_text(json.dumps({"parameters": parameters, "containers": False}))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        EVENTS_VARIABLE: str(tmp_path / "events.jsonl"),
        "FASHION_TUNING_RUN_ID": "local",
    }

    ended = subprocess.run(
        [sys.executable, "-c", LOCAL, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )

    assert 0 != ended.returncode
    (event,) = hook.bodies
    assert ("failed", ["plan"]) == (event["data"]["state"], [found["step"] for found in event["data"]["failures"]])
    assert "/no/such/folder" in event["data"]["failures"][0]["message"]
    assert hook.path not in ended.stdout + ended.stderr


def test_run_that_ends_before_its_first_step_is_told(hook, tmp_path):
    """The error of the run itself is told where no step has reported anything."""
    with pytest.raises(UnavailableError), notifying(tmp_path, "local", str(tmp_path), "cloudevents"):
        raise UnavailableError("a container engine must answer; got nothing. Start docker")

    (event,) = hook.bodies
    assert [("run", "a container engine must answer; got nothing. Start docker")] == [
        (failure["step"], failure["message"]) for failure in event["data"]["failures"]
    ]


def test_local_run_tells_that_it_failed(hook, tmp_path, capsys):
    """`run --notify` tells the first failed step; a webhook that does not answer changes nothing about the exit code."""
    from pipelines.__main__ import run

    sample = tmp_path / "sample"
    sample.mkdir()
    (sample / "styles.csv").write_text("id\n")
    arguments = ["run", "--dataset", f"fashion-products={sample}", "--out", str(tmp_path / "out")]

    assert 65 == run([*arguments, "--notify", "cloudevents"])
    (event,) = hook.bodies
    assert "ingest fashion-products" == event["data"]["failures"][0]["step"]
    assert "ERROR 65" in capsys.readouterr().err
