import json
import threading
import time
from collections import Counter
from pathlib import Path

import kfp_server_api
import pytest

from pipelines.__main__ import run
from pipelines.kubeflow.manifest import manifest
from pipelines.kubeflow.package import read_package
from pipelines.kubeflow.states import is_cancelled
from tests.fakes.gcs import FakeGcs
from tests.fakes.kfp_api import FakeKfpApi, Fault
from tests.fakes.summary import SUMMARY


def counts(api: FakeKfpApi) -> tuple[int, int, int, int]:
    """How many pipelines, versions, experiments and runs there are."""
    return len(api.pipelines), len(api.versions), len(api.experiments), len(api.runs)


def the_run(api: FakeKfpApi) -> dict:
    """The only run."""
    (found,) = api.runs.values()
    return found


def test_submit_starts_a_run_of_this_commit(kubeflow: FakeKfpApi, cluster: str) -> None:
    """The run has the version of this commit, all parameters, the profile's experiment and service account."""
    assert 0 == run(["submit", "--cluster", cluster, "--preset", "quickstart", "--set", "seed=7"])

    (version,) = kubeflow.versions.values()
    started = the_run(kubeflow)
    parameters = started["runtime_config"]["parameters"]
    assert "0.2.0-0123456789ab" == version["name"]
    assert version["pipeline_version_id"] == started["pipeline_version_reference"]["pipeline_version_id"]
    assert "runner" == started["service_account"]
    assert (4, 7, "gs://bucket/fashion-tuning") == tuple(parameters[n] for n in ("search_trials", "seed", "study_root"))
    assert 20 == len(parameters)


def test_forced_colours_make_no_terminal(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In notebooks and in CI `FORCE_COLOR` is set; a file gets a line for each change there too, and no live table."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert 0 == run(["submit", "--cluster", cluster, "--name", "ci-1", "--wait"])
    said = capsys.readouterr().err
    assert 1 == len(kubeflow.runs)
    assert "run: " in said
    assert "\x1b[?25l" not in said


def test_submitting_again_doubles_nothing(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """While the run works, the same command finds it."""
    codes = [run(["submit", "--cluster", cluster]) for _ in range(3)]

    assert [0, 0, 0] == codes
    assert (1, 1, 1, 1) == counts(kubeflow)
    assert 2 == capsys.readouterr().err.count("is there already, pending")


def test_a_finished_run_other_parameters_and_again_start_another(kubeflow: FakeKfpApi, cluster: str) -> None:
    """A new run comes where the old one has ended, where it is another question, and where it is asked for."""
    run(["submit", "--cluster", cluster])
    kubeflow.finish(the_run(kubeflow)["run_id"])
    run(["submit", "--cluster", cluster])
    run(["submit", "--cluster", cluster, "--set", "seed=1"])
    run(["submit", "--cluster", cluster, "--set", "seed=1", "--again"])

    assert (1, 1, 1, 4) == counts(kubeflow)


def test_a_named_run_is_started_once(kubeflow: FakeKfpApi, cluster: str) -> None:
    """With a name of its own a run that has succeeded is found again; one that failed is started again."""
    named = ["submit", "--cluster", cluster, "--name", "ci-1", "--wait"]
    first = [run(named), run(named), len(kubeflow.runs)]
    the_run(kubeflow)["state"] = "FAILED"
    second = [run(named), len(kubeflow.runs)]

    assert [0, 0, 1] == first
    assert [0, 2] == second


def test_other_content_of_the_same_commit_is_another_version(
    kubeflow: FakeKfpApi, cluster: str, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two profiles of one commit give two versions, each uploaded once; the order of keys does not matter."""
    from pipelines.kubeflow import package

    def other(output: Path, _profile: object) -> Path:
        output.write_text(compiled.read_text().replace("registry.test", "other.test"))
        return output

    run(["submit", "--cluster", cluster])
    with monkeypatch.context() as patch:
        patch.setattr(package, "compile_pipeline", other)
        run(["submit", "--cluster", cluster])
        run(["submit", "--cluster", cluster])
    run(["submit", "--cluster", cluster])

    names = sorted(version["name"] for version in kubeflow.versions.values())
    assert ["0.2.0-0123456789ab", "0.2.0-0123456789ab-"] == [names[0], names[1][:-8]]


def test_parameters_of_a_file(
    kubeflow: FakeKfpApi, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """`--parameters` reaches the run as `--set` does."""
    (tmp_path / "week.yaml").write_text("search_trials: 7\n")

    assert 0 == run(["submit", "--cluster", cluster, "--dry-run", "--parameters", str(tmp_path / "week.yaml")])
    assert 7 == json.loads(capsys.readouterr().out)["parameters"]["search_trials"]
    assert {} == kubeflow.runs


def test_dry_run_changes_nothing(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """It says what would happen, and sends no request but GETs."""
    code = run(["submit", "--cluster", cluster, "--dry-run"])

    said = capsys.readouterr()
    assert 0 == code
    assert {"GET"} == {request.split()[0] for request in kubeflow.requests}
    assert 3 == said.err.count("would be created")
    assert 30 == json.loads(said.out)["parameters"]["search_trials"]


def test_wrong_parameters_are_refused_together_and_early(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """Every problem is in one line, and the server is not asked."""
    wrong = ["--set", "search_trials=-1", "--set", "search_space=huge", "--dataset", "fashion-mnist=/home/me/data"]
    code = run(["submit", "--cluster", cluster, *wrong])

    (line,) = capsys.readouterr().err.splitlines()
    assert (64, []) == (code, kubeflow.requests)
    assert ["search_trials", "search_space"] == [name for name in ("search_trials", "search_space") if name in line]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "fashion-mnist=/home/me/data"], "reachable from the cluster"),
        (["--set", "study_root=runs/here"], "study_root must be gs://"),
        ([x for n in "abcdef" for x in ("--dataset", f"{n}=gs://{n * 1900}")], "10000 bytes"),
    ],
)
def test_what_cannot_work_on_a_cluster_is_refused(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    """A path of this machine, and more parameters than Kubeflow stores, end before the upload."""
    assert 64 == run(["submit", "--cluster", cluster, *arguments])
    assert words in capsys.readouterr().err
    assert [] == kubeflow.requests


@pytest.mark.parametrize("profile", ["local", "gke"])
def test_a_profile_without_a_cluster_is_refused(
    kubeflow: FakeKfpApi, capsys: pytest.CaptureFixture, profile: str
) -> None:
    """The built-in profile, and one with example values, are configuration errors."""
    assert 78 == run(["submit", "--cluster", profile])
    assert 1 == len(capsys.readouterr().err.splitlines())
    assert [] == kubeflow.requests


def test_namespaces_are_used_where_there_are_some(kubeflow: FakeKfpApi, cluster: str) -> None:
    """With namespaces, pipeline and experiment are the team's; a pipeline of the same name elsewhere is left alone."""
    kubeflow.multi_user = True
    kubeflow.pipelines["shared"] = {"pipeline_id": "shared", "name": "fashion-tuning", "display_name": "fashion-tuning"}
    kubeflow.pipelines["shared"] |= {"namespace": "", "created_at": "2026-01-01T00:00:00Z"}
    codes = [run(["submit", "--cluster", cluster]) for _ in range(2)]

    assert [0, 0] == codes
    assert Counter({"": 1, "kubeflow": 1}) == Counter(p["namespace"] for p in kubeflow.pipelines.values())
    assert (2, 1, 1, 1) == counts(kubeflow)


def test_many_pipelines_versions_and_runs_are_paged_through(kubeflow: FakeKfpApi, cluster: str) -> None:
    """The run is found behind hundreds of others of its name."""
    run(["submit", "--cluster", cluster, "--name", "nightly"])
    first = the_run(kubeflow)
    for n in range(230):
        kubeflow.runs[f"old-{n}"] = {
            **first,
            "run_id": f"old-{n}",
            "state": "FAILED",
            "created_at": f"2027-01-01T{n:06}Z",
        }
    run(["submit", "--cluster", cluster, "--name", "nightly"])

    assert 231 == len(kubeflow.runs)


@pytest.mark.parametrize(
    ("state", "code", "word"),
    [
        ("SUCCEEDED", 0, ""),
        ("FAILED", 65, "got failed in search-mlp"),
        ("SKIPPED", 65, "got skipped"),
        ("CANCELED", 143, "got cancelled"),
    ],
)
def test_the_exit_code_is_the_runs_end(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, state: str, code: int, word: str
) -> None:
    """Every end of a run has its exit code and, where it is not success, one line that says so."""
    steps = {"plan-driver": "SUCCEEDED", "plan": "SUCCEEDED", "search-mlp": "SUCCEEDED", "search-mlp#2": "FAILED"}
    kubeflow.script = [
        ("PENDING", {}),
        ("RUNNING", {"plan": "RUNNING"}),
        ("PAUSED", {}),
        ("NEW_STATE", {}),
        (state, steps),
    ]

    assert code == run(["submit", "--cluster", cluster, "--wait"])
    said = capsys.readouterr().err
    assert ["plan: running", "plan: succeeded", "search-mlp: 1 failed, 1 succeeded"] == [
        line.split("] ")[1] for line in said.splitlines() if "] plan" in line or "] search" in line
    ]
    assert word in said
    assert (1 if code else 0) == said.count("ERROR")


def test_a_cancelled_run_ends_with_143(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """The server ends a cancelled run as failed, with CANCELING before it; JSON and the schedule say canceled as well."""
    kubeflow.script = [("RUNNING", {})]
    kubeflow.after_poll(3, lambda: kubeflow.terminate(next(iter(kubeflow.runs))))

    assert 143 == run(["submit", "--cluster", cluster, "--wait", "--json"])
    said = capsys.readouterr()
    assert ["PENDING", "RUNNING", "CANCELING", "FAILED"] == [s["state"] for s in the_run(kubeflow)["state_history"]]
    assert "CANCELED" == json.loads(said.out)["state"]
    assert "got cancelled" in said.err.splitlines()[-1]


def test_a_run_that_is_being_cancelled_is_not_taken_up(kubeflow: FakeKfpApi, cluster: str) -> None:
    """It will not come to an end of its own; another one is started."""
    kubeflow.script = [("RUNNING", {})]
    run(["submit", "--cluster", cluster])
    the_run(kubeflow)["state"] = "CANCELING"
    run(["submit", "--cluster", cluster])

    assert 2 == len(kubeflow.runs)


@pytest.mark.parametrize(
    ("states", "cancelled"),
    [
        (["PENDING", "RUNNING", "CANCELING", "FAILED"], True),
        (["PENDING", "CANCELING", "FAILED"], True),
        (["PENDING", "RUNNING", "CANCELING", "FAILED", "RUNNING", "FAILED"], False),
        (["PENDING", "RUNNING", "CANCELING", "FAILED", "RUNNING", "CANCELING", "FAILED"], True),
        (["PENDING", "RUNNING", "CANCELING", "SUCCEEDED"], False),
        (["PENDING", "RUNNING", "CANCELED"], True),
        (["PENDING", "RUNNING", "FAILED"], False),
        (["FAILED"], False),
    ],
)
def test_what_counts_as_cancelled(states: list[str], cancelled: bool) -> None:
    """What came last before the end decides: a cancelled run that was repeated has an older CANCELING."""
    history = [kfp_server_api.V2beta1RuntimeStatus(state=state) for state in states]

    assert cancelled == is_cancelled(kfp_server_api.V2beta1Run(state=states[-1], state_history=history))


def test_archived_runs_and_experiments_are_not_taken_up(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """What somebody put away is named: a run is started anew, an experiment must be restored."""
    kubeflow.script = [("RUNNING", {})]
    run(["submit", "--cluster", cluster])
    the_run(kubeflow)["storage_state"] = "ARCHIVED"
    first = run(["submit", "--cluster", cluster])
    said = capsys.readouterr().err
    (experiment,) = kubeflow.experiments.values()
    experiment["storage_state"] = "ARCHIVED"
    second = run(["submit", "--cluster", cluster])

    assert (0, 2, 78) == (first, len(kubeflow.runs), second)
    assert "is archived, and is not taken up" in said
    assert "experiment fashion-tuning must not be archived" in capsys.readouterr().err


@pytest.mark.usefixtures("kubeflow")
def test_a_wrong_namespace_is_refused(cluster: str, capsys: pytest.CaptureFixture) -> None:
    """Without namespaces of teams everything is in the installation's own; another one in the profile is a mistake."""
    path = Path(cluster)
    path.write_text(path.read_text().replace("namespace: kubeflow", "namespace: kubeflw"))

    assert 78 == run(["submit", "--cluster", cluster, "--dry-run"])
    assert "namespace must be kubeflow" in capsys.readouterr().err
    assert 0 == run(["submit", "--cluster", cluster, "--dry-run", "--installation", "kubeflw"])


@pytest.mark.parametrize("title", ["", "Fashion tuning: MLP or ResNet18?"])
def test_what_was_applied_from_git_is_found(kubeflow: FakeKfpApi, cluster: str, compiled: Path, title: str) -> None:
    """With pipelines as Kubernetes resources, `submit` uses what `compile --manifest` wrote, and an older title's pipeline."""
    kubeflow.kubernetes_store = True
    pipeline, version = manifest(read_package(compiled), "kubeflow")
    pipeline["spec"]["displayName"] = title or pipeline["spec"]["displayName"]
    kubeflow.apply(pipeline, version)
    codes = [run(["submit", "--cluster", cluster]) for _ in range(2)]

    assert [0, 0] == codes
    assert (1, 1, 1, 1) == counts(kubeflow)
    assert {"GET"} == {request.split()[0] for request in kubeflow.requests if "pipelines" in request}


def test_uploads_are_named_as_resources_are(kubeflow: FakeKfpApi, cluster: str) -> None:
    """On a server that stores pipelines as Kubernetes resources `submit` alone works as well."""
    kubeflow.kubernetes_store = True

    assert [0, 0] == [run(["submit", "--cluster", cluster]) for _ in range(2)]
    assert (1, 1, 1, 1) == counts(kubeflow)


def test_waiting_ends_in_time_and_finds_the_run_again(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """A run that outlasts the wait goes on; the same command waits for it again."""
    kubeflow.script = [("RUNNING", {})]
    first = run(["submit", "--cluster", cluster, "--wait", "--timeout-minutes", "0.002"])
    kubeflow.play(("RUNNING", {}), ("SUCCEEDED", {}))
    second = run(["submit", "--cluster", cluster, "--wait"])

    assert [75, 0] == [first, second]
    assert (1, 1, 1, 1) == counts(kubeflow)
    assert "the same command finds it again" in capsys.readouterr().err


def test_a_restart_of_the_cluster_is_waited_out(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """The API goes away and comes back while the run is watched."""
    kubeflow.script = [("RUNNING", {})]

    def restart() -> None:
        kubeflow.stop()
        kubeflow.play(("SUCCEEDED", {}))
        time.sleep(0.3)
        kubeflow.start()

    kubeflow.after_poll(3, restart)

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    said = capsys.readouterr().err
    assert ["still waiting" in said, "the API answers again" in said] == [True, True]


def test_an_api_that_stays_away_ends_the_wait(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the patience has run out the exit code says unavailable, and that the run goes on."""
    from pipelines.kubeflow import runs as waiting

    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.2)
    kubeflow.fail(Fault("status", status=503, method="GET", contains="/runs/", times=-1, skip=2))
    kubeflow.script = [("RUNNING", {})]

    assert 69 == run(["submit", "--cluster", cluster, "--wait"])
    assert "The run goes on" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_deleted_while_watched_is_an_end(kubeflow: FakeKfpApi, cluster: str) -> None:
    """A run that is gone has no result."""
    kubeflow.script = [("RUNNING", {})]
    kubeflow.after_poll(3, kubeflow.runs.clear)

    assert 65 == run(["submit", "--cluster", cluster, "--wait"])


def test_one_answer_of_a_stranger_deletes_no_run(kubeflow: FakeKfpApi, cluster: str) -> None:
    """A single 404, as of another program that got the port of a port-forward for a moment, is asked again."""
    kubeflow.fail(Fault("status", status=404, method="GET", contains="/runs/", skip=2))
    kubeflow.script = [("RUNNING", {})] * 4 + [("SUCCEEDED", {})]

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])


def test_a_token_that_is_renewed_on_disk_lasts(
    kubeflow: FakeKfpApi, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours into a run the token of the start has expired; the file has the new one."""
    path = tmp_path / "token"
    path.write_text("first\n")
    monkeypatch.setenv("KFP_TOKEN_FILE", str(path))
    kubeflow.token = "first"
    kubeflow.script = [("RUNNING", {})]

    def renew() -> None:
        with kubeflow._lock:  # no request between the two
            path.write_text("second\n")
            kubeflow.token = "second"
        kubeflow.play(("SUCCEEDED", {}))

    kubeflow.after_poll(3, renew)

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])


GET, POST = "GET", "POST"
PERMANENT = [
    ("401", Fault("status", status=401, times=-1), 78, "needs valid credentials"),
    ("403", Fault("status", status=403, times=-1, contains="/experiments"), 77, "must be allowed to you"),
    ("404", Fault("status", status=404, times=-1, contains="/healthz"), 78, "must name what exists"),
    ("400", Fault("status", status=400, times=-1, contains="/runs", method=POST), 64, "must be acceptable"),
    ("429", Fault("status", status=429, times=-1, contains="/pipelines"), 75, "asked too often"),
    ("429 post", Fault("status", status=429, times=-1, contains="/runs", method=POST), 75, "asked too often"),
    ("500", Fault("status", status=500, times=-1, contains="/versions"), 69, "needs a working API; got 500"),
    ("501", Fault("status", status=501, times=-1, contains="/versions"), 78, "must know the v2beta1 API"),
    ("502", Fault("status", status=502, times=-1, contains="/pipelines"), 69, "got 502"),
    ("503", Fault("status", status=503, times=-1), 69, "got 503"),
    ("504 post", Fault("status", status=504, times=-1, contains="/runs", method=POST), 75, "nothing has appeared yet"),
    ("login page", Fault("html", times=-1), 78, "most likely a login page"),
    ("not JSON", Fault("garbage", times=-1, contains="/pipelines"), 69, "must be JSON"),
    ("dropped", Fault("drop", times=-1), 69, "must be answered"),
    ("stalled", Fault("stall", times=-1, seconds=0.9, contains="/experiments"), 69, "timed out"),
]


@pytest.mark.parametrize(("fault", "code", "words"), [p[1:] for p in PERMANENT], ids=[p[0] for p in PERMANENT])
def test_every_failure_is_one_line_one_code_and_safe_to_repeat(
    kubeflow: FakeKfpApi,
    cluster: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    code: int,
    words: str,
) -> None:
    """A failing API ends the command with one clear line; once it works, the same command leaves one of everything."""
    from pipelines.kubeflow import connection as kfp_client

    monkeypatch.setattr(kfp_client, "TIMEOUT", (0.5, 0.5))
    kubeflow.fail(fault)

    assert code == run(["submit", "--cluster", cluster])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR")]
    assert 1 == len(errors)
    assert errors[0].startswith(f"ERROR {code} submit: ")
    assert words in errors[0]
    fault.times = 0
    assert 0 == run(["submit", "--cluster", cluster])
    assert (1, 1, 1, 1) == counts(kubeflow)


def test_an_api_that_is_down_is_unavailable(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """Nothing listens: one line, with what to try."""
    kubeflow.stop()

    assert 69 == run(["submit", "--cluster", cluster])
    assert "got no connection. Check the URL, start a port-forward" in capsys.readouterr().err
    kubeflow.start()
    assert 0 == run(["submit", "--cluster", cluster])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_ridden_out(kubeflow: FakeKfpApi, cluster: str, status: int) -> None:
    """Two bad answers to every kind of question do not end the command."""
    for path in ("/healthz", "/pipelines", "/versions", "/experiments", "/runs"):
        kubeflow.fail(Fault("status", status=status, method=GET, contains=path, times=2))

    assert 0 == run(["submit", "--cluster", cluster])
    assert (1, 1, 1, 1) == counts(kubeflow)


@pytest.mark.parametrize("path", ["v2beta1/pipelines", "upload_version", "experiments", "runs"])
@pytest.mark.parametrize("kind", ["drop", "status", "stall"])
def test_a_lost_answer_doubles_nothing(
    kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    """What was made although its answer was lost is found and used."""
    from pipelines.kubeflow import connection as kfp_client

    monkeypatch.setattr(kfp_client, "TIMEOUT", (0.5, 0.5))
    kubeflow.fail(Fault(kind, status=504, method=POST, contains=path, when="after", seconds=0.9))

    assert 0 == run(["submit", "--cluster", cluster])
    assert (1, 1, 1, 1) == counts(kubeflow)


@pytest.mark.parametrize("path", ["v2beta1/pipelines", "upload_version", "experiments"])
def test_somebody_else_was_faster(kubeflow: FakeKfpApi, cluster: str, path: str) -> None:
    """Another submitter makes the same thing between our look and our request: theirs is used."""
    kubeflow.fail(Fault("status", status=409, method=POST, contains=path, when="after"))

    assert 0 == run(["submit", "--cluster", cluster])
    assert (1, 1, 1, 1) == counts(kubeflow)


def test_two_submitters_at_once_leave_one_of_everything(kubeflow: FakeKfpApi, compiled: Path) -> None:
    """Pipeline, version and experiment are shared; each has its own run under its own name."""
    from pipelines.kubeflow.connection import connect
    from pipelines.kubeflow.publish import publish

    package = read_package(compiled)
    results = []

    def work() -> None:
        with connect(api=kubeflow.url) as api:
            results.append(publish(api, package, "fashion-tuning", lambda _: None, dry_run=False))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 6 == len(results)
    assert 1 == len(set(results))
    assert (1, 1, 1, 0) == counts(kubeflow)


def test_a_server_with_another_pipeline_says_what_does_not_fit(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """Version skew: a parameter the server's version lacks is named, and the code says parameters."""
    run(["submit", "--cluster", cluster, "--dry-run"])
    run(["submit", "--cluster", cluster])
    kubeflow.finish(the_run(kubeflow)["run_id"])
    (version,) = kubeflow.versions.values()
    spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
    del spec["root"]["inputDefinitions"]["parameters"]["seed"]

    assert 64 == run(["submit", "--cluster", cluster])
    assert "not required by pipeline: seed" in capsys.readouterr().err


def test_the_figures_are_printed_and_given_as_json(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a run that succeeded: a table, the verdict, the report's link, JSON for programs, Markdown for CI."""
    with FakeGcs("bucket") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        from components.stores import open_store

        run(["submit", "--cluster", cluster])
        run_id = the_run(kubeflow)["run_id"]
        store = open_store("gs://bucket/fashion-tuning")
        store.create(f"runs/{run_id}/summary.json", json.dumps(SUMMARY).encode())
        capsys.readouterr()
        markdown = tmp_path / "summary.md"
        kubeflow.play(("RUNNING", {}), ("SUCCEEDED", {}))
        codes = [
            run(
                ["submit", "--cluster", cluster, "--wait", "--require-promotion", "--json", "--markdown", str(markdown)]
            )
        ]
        result = json.loads(capsys.readouterr().out)
        kubeflow.runs[run_id]["state"] = "RUNNING"
        codes.append(run(["submit", "--cluster", cluster, "--wait"]))
        shown = capsys.readouterr().out

    assert [0, 0] == codes
    assert ("SUCCEEDED", 0.91) == (
        result["state"],
        result["summary"]["datasets"]["fashion-mnist"]["approaches"]["resnet18"]["accuracy"],
    )
    assert "fashion-mnist  resnet18    0.9100  0.9000-0.9200    0.9000       120       30" in shown
    assert "ResNet18 is better by 1.00 points. Champion: better." in shown
    assert f"https://storage.cloud.google.com/bucket/fashion-tuning/runs/{run_id}/report.html" in shown
    assert "| fashion-mnist | mlp | 0.9000 | 0.8900-0.9100 | 0.9000 | 120 | 30 |" in markdown.read_text()


def test_a_refused_champion_fails_where_that_is_asked_for(tmp_path: Path) -> None:
    """`--require-promotion` makes a gate that refuses an exit code, naming the dataset and the decision."""
    from pipelines.run_results import RefusedError, require_promoted, write_markdown

    refused = json.loads(json.dumps(SUMMARY))
    refused["datasets"]["fashion-mnist"]["champion"]["decision"] = "tie"
    refused["datasets"]["fashion-mnist"]["comparison"]["verdict"] = "<b>|x|</b>"
    write_markdown(tmp_path / "s.md", "succeeded", "http://ui", "", refused, "s3://bucket/p", "1")

    require_promoted(SUMMARY)
    with pytest.raises(RefusedError, match="fashion-mnist: tie") as error:
        require_promoted(refused)
    with pytest.raises(RefusedError, match="got no summary"):
        require_promoted(None)
    assert 65 == error.value.exit_code
    assert r"\<b\>\|x\|" in (tmp_path / "s.md").read_text()


def test_figures_that_cannot_be_read_do_not_fail_the_run(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submitter without access to the bucket still gets the run's state."""
    with FakeGcs("other-bucket") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)

        assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    assert "SUCCEEDED" == the_run(kubeflow)["state"]
    assert "results:" in capsys.readouterr().err


def test_the_real_compiler_is_used(kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tests' shortcut the upload is what `compile` writes."""
    from pipelines import compilation
    from pipelines.kubeflow import package

    monkeypatch.setattr(package, "compile_pipeline", compilation.compile_pipeline)

    assert 0 == run(["submit", "--cluster", cluster])
    (version,) = kubeflow.versions.values()
    assert "fashion-tuning" == version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"]


def test_figures_come_through_the_ui_where_the_store_has_no_address_here(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store inside the cluster is asked by the UI, which has its keys; without a UI both reasons are said."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    path = Path(cluster)
    path.write_text(
        path.read_text().replace("gs://bucket", "s3://mlpipeline")
        + "environment: {AWS_ENDPOINT_URL: 'http://seaweedfs.kubeflow:8333'}\n"
    )
    first = run(["submit", "--cluster", cluster, "--wait"])
    without = capsys.readouterr().err
    key = f"fashion-tuning/runs/{next(reversed(kubeflow.runs))}/summary.json"
    kubeflow.artifacts = {("minio", "mlpipeline", key): SUMMARY}
    second = run(["submit", "--cluster", cluster, "--wait", "--name", "again"])
    key = f"fashion-tuning/runs/{next(reversed(kubeflow.runs))}/summary.json"
    kubeflow.artifacts = {("minio", "mlpipeline", key): SUMMARY}
    third = run(["submit", "--cluster", cluster, "--wait", "--name", "again"])

    assert [0, 0, 0] == [first, second, third]
    assert "summary.json cannot be read from here ('read the scores through the UI'" in without
    assert "ResNet18 is better by 1.00 points." in capsys.readouterr().out
