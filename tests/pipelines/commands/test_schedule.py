import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from croniter import croniter

from pipelines.__main__ import run
from pipelines.kubeflow import package
from tests.fakes.kfp_api import FakeKfpApi, Fault

WEEKLY = "0 0 3 * * 1"


def the_schedule(api: FakeKfpApi) -> dict:
    """The only recurring run."""
    (found,) = api.recurring_runs.values()
    return found


def schedule(cluster: str, *arguments: str) -> int:
    """Run the command, with the weekly cron unless told otherwise."""
    cron = () if {"--cron", "--remove"} & set(arguments) else ("--cron", WEEKLY)
    return run(["schedule", "--cluster", cluster, *cron, *arguments])


def test_a_schedule_is_complete(kubeflow: FakeKfpApi, cluster: str) -> None:
    """It is enabled, on this commit's version, one run at a time, without catching up, with every parameter."""
    assert 0 == schedule(cluster, "--set", "search_trials=12")

    made = the_schedule(kubeflow)
    (version,) = kubeflow.versions.values()
    assert (WEEKLY, "ENABLED", "1", True, "runner") == (
        made["trigger"]["cron_schedule"]["cron"],
        made["status"],
        made["max_concurrency"],
        made["no_catchup"],
        made["service_account"],
    )
    assert version["pipeline_version_id"] == made["pipeline_version_reference"]["pipeline_version_id"]
    assert 12 == made["runtime_config"]["parameters"]["search_trials"]


def test_the_same_again_changes_nothing(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Reconciling twice sends no second change."""
    schedule(cluster)
    kubeflow.requests.clear()

    assert 0 == schedule(cluster)
    assert {"GET"} == {request.split()[0] for request in kubeflow.requests}


def test_the_next_three_firings_are_printed(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """They are those an independent library computes, with the time zone and where it comes from."""
    schedule(cluster, "--dry-run")
    independent = croniter(WEEKLY, datetime.now(UTC), second_at_beginning=True)

    lines = capsys.readouterr().err.splitlines()
    expected = [independent.get_next(datetime).strftime("fires %a %Y-%m-%d 03:00:00 UTC") for _ in range(3)]
    assert expected == [line for line in lines if line.startswith("fires")]
    assert 1 == sum("CRON_SCHEDULE_TIMEZONE" in line for line in lines)
    assert {} == kubeflow.recurring_runs


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--cron", "0 30 4 * * 1"], "cron: '0 0 3 * * 1' -> '0 30 4 * * 1'"),
        (["--set", "seed=5"], "seed: 0 -> 5"),
        (["--preset", "quickstart"], "search_trials: 30 -> 4"),
    ],
)
def test_a_change_replaces(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, arguments: list[str], shown: str
) -> None:
    """A dry run shows the difference and changes nothing; the real one leaves one, changed and enabled."""
    schedule(cluster)
    before = the_schedule(kubeflow)["recurring_run_id"]
    dry = schedule(cluster, "--dry-run", *arguments)
    unchanged = the_schedule(kubeflow)["recurring_run_id"]
    real = schedule(cluster, *arguments)

    assert [0, 0, before] == [dry, real, unchanged]
    assert [True, "ENABLED"] == [the_schedule(kubeflow)["recurring_run_id"] != before, the_schedule(kubeflow)["status"]]
    assert 2 == capsys.readouterr().err.count(shown)


def test_never_two_can_fire_and_one_is_made_before_one_goes(kubeflow: FakeKfpApi, cluster: str) -> None:
    """The order is: make it disabled, delete the old one, enable it."""
    schedule(cluster)
    old = the_schedule(kubeflow)["recurring_run_id"]
    kubeflow.requests.clear()
    schedule(cluster, "--set", "seed=1")
    new = the_schedule(kubeflow)["recurring_run_id"]

    prefix = "/apis/v2beta1/recurringruns"
    expected = [f"POST {prefix}", f"DELETE {prefix}/{old}", f"POST {prefix}/{new}:enable"]
    assert expected == [request for request in kubeflow.requests if not request.startswith("GET")]


def test_it_follows_the_newest_version(kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new commit moves the schedule; an older checkout does not move it back."""
    schedule(cluster)
    tags = {"now": "ffffffffffff"}
    monkeypatch.setattr(package, "image_tag", lambda: tags["now"])
    schedule(cluster)
    newest = max(kubeflow.versions.values(), key=lambda version: version["created_at"])
    moved = the_schedule(kubeflow)["pipeline_version_reference"]["pipeline_version_id"]
    tags["now"] = "0123456789ab"
    schedule(cluster)
    kept = the_schedule(kubeflow)["pipeline_version_reference"]["pipeline_version_id"]

    assert ["0.2.0-ffffffffffff", moved, moved] == [newest["name"], newest["pipeline_version_id"], kept]


def test_strays_of_its_name_go_and_others_stay(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Two of the name, a disabled one and one made by hand in the UI become one; another name is left alone."""
    schedule(cluster)
    schedule(cluster, "--name", "another")
    first = next(iter(kubeflow.recurring_runs.values()))
    for n in range(3):
        stray = {**first, "recurring_run_id": f"stray-{n}", "status": "DISABLED", "max_concurrency": "10"}
        kubeflow.recurring_runs[f"stray-{n}"] = stray

    assert 0 == schedule(cluster)
    assert ["another", "fashion-tuning"] == sorted(r["display_name"] for r in kubeflow.recurring_runs.values())
    assert first["recurring_run_id"] in kubeflow.recurring_runs


@pytest.mark.parametrize(
    "change",
    [
        {"status": "DISABLED"},
        {"max_concurrency": "2"},
        {"no_catchup": False},
        {"trigger": {"periodic_schedule": {"interval_second": "3600"}}},
        {"runtime_config": {}},
        {"pipeline_version_reference": None, "pipeline_spec": {}},
        {"service_account": "default"},
    ],
)
def test_whatever_was_changed_by_hand_is_put_right(kubeflow: FakeKfpApi, cluster: str, change: dict) -> None:
    """Each property that matters is compared."""
    schedule(cluster)
    wanted = {key: the_schedule(kubeflow)[key] for key in change if key != "pipeline_spec"}
    the_schedule(kubeflow).update(change)

    assert 0 == schedule(cluster)
    assert wanted == {key: the_schedule(kubeflow)[key] for key in wanted}


@pytest.mark.parametrize("arguments", [["--set", "seed=1"], ["--remove"]])
def test_a_working_run_is_not_cut_off(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    """While a scheduled run works the schedule stays, unless forced; forced, the run still ends by itself."""
    schedule(cluster)
    old = the_schedule(kubeflow)["recurring_run_id"]
    run_id = kubeflow.fire(old, script=[("RUNNING", {})])
    refused = schedule(cluster, *arguments)
    still_there = old in kubeflow.recurring_runs
    dry = schedule(cluster, "--dry-run", *arguments)
    forced = schedule(cluster, "--force", *arguments)

    kubeflow._get_run(run_id, {})
    assert [75, True, 75, 0] == [refused, still_there, dry, forced]
    assert [False, "RUNNING"] == [old in kubeflow.recurring_runs, kubeflow.runs[run_id]["state"]]
    assert f"must have no working run while it is replaced or removed; got {run_id}" in capsys.readouterr().err


def test_a_finished_run_does_not_hold_it(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Once the run has ended the schedule can change."""
    schedule(cluster)
    kubeflow.finish(kubeflow.fire(the_schedule(kubeflow)["recurring_run_id"]), "CANCELED")

    assert 0 == schedule(cluster, "--set", "seed=1")


def test_unchanged_is_fine_while_a_run_works(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Reconciling what is right already does not mind a working run."""
    schedule(cluster)
    kubeflow.fire(the_schedule(kubeflow)["recurring_run_id"], script=[("RUNNING", {})])

    assert 0 == schedule(cluster)


def test_remove_removes_all_of_the_name(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """Removing works, twice, and dry."""
    schedule(cluster)
    codes = [schedule(cluster, "--remove", "--dry-run")]
    left = len(kubeflow.recurring_runs)
    codes += [schedule(cluster, "--remove"), schedule(cluster, "--remove")]

    assert [0, 0, 0] == codes
    assert [1, {}] == [left, kubeflow.recurring_runs]
    said = [line for line in capsys.readouterr().err.splitlines() if "remove" in line or "not there" in line]
    assert ["would be removed", "removed", "is not there"] == [line.partition(": ")[2] for line in said]


def test_show_tells_what_runs_when(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """`schedule show` gives state, cron, version, next firings in the zone, and the last runs; both option orders work."""
    schedule(cluster)
    run_id = kubeflow.fire(the_schedule(kubeflow)["recurring_run_id"])
    kubeflow.finish(run_id, "FAILED")
    capsys.readouterr()
    codes = [run(["schedule", "show", "--cluster", cluster, "--json", "--timezone", "Europe/Berlin"])]
    (shown,) = json.loads(capsys.readouterr().out)
    codes.append(run(["schedule", "--cluster", cluster, "show"]))

    assert [0, 0] == codes
    assert ("enabled", WEEKLY, "0.2.0-0123456789ab", [f"{run_id} failed"]) == (
        shown["state"],
        shown["cron"],
        shown["version"],
        shown["last runs"],
    )
    assert [True] * 3 == ["03:00:00 CE" in time for time in shown["next"]]
    assert "cron         0 0 3 * * 1" in capsys.readouterr().out


def test_show_says_when_there_is_none_or_it_lags(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    """An absent schedule, one on an old version and one that Kubeflow misreads are all told."""
    run(["schedule", "show", "--cluster", cluster])
    assert "there is no recurring run" in capsys.readouterr().out
    schedule(cluster)
    (version,) = kubeflow.versions.values()
    kubeflow.versions["2"] = {**version, "pipeline_version_id": "2", "name": "n", "display_name": "newer"}
    kubeflow.versions["2"]["created_at"] = "2030-01-01T00:00:00Z"
    the_schedule(kubeflow)["trigger"]["cron_schedule"]["cron"] = "0 3 * * *"
    run(["schedule", "show", "--cluster", cluster])

    said = capsys.readouterr().out
    assert "not the newest, newer" in said
    assert "fire 24 times a day" in said


@pytest.mark.parametrize("cron", ["0 3 * * *", "61 * * * * *", "0 0 31 2 * *", "0 0 3 * * 1 2027", "@dailyy", ""])
def test_wrong_expressions_never_reach_the_server(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, cron: str
) -> None:
    """What Kubeflow would misread ends before anything is asked or uploaded."""
    assert 64 == schedule(cluster, "--cron", cron)
    assert [1, []] == [len(capsys.readouterr().err.splitlines()), kubeflow.requests]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cron", WEEKLY, "--timezone", "Europe/Berlim"], "--timezone must be a name"),
        (["--cron", WEEKLY, "--remove"], "either --cron or --remove"),
        (["--cron", WEEKLY, "--set", "search_trials=0"], "search_trials"),
        ([], "either --cron or --remove"),
    ],
)
def test_wrong_arguments_are_refused(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    """Time zones, parameters and contradictions are checked before anything is asked."""
    assert 64 == run(["schedule", "--cluster", cluster, *arguments])
    assert words in capsys.readouterr().err
    assert [] == kubeflow.requests


def test_firing_all_the_time_gets_a_warning(kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """A schedule that fires more often than a run can end is allowed, and said."""
    assert 0 == schedule(cluster, "--cron", "0 */10 * * * *", "--dry-run")
    assert "warning: that is every 600 s" in capsys.readouterr().err
    assert {} == kubeflow.recurring_runs


@pytest.mark.parametrize("step", ["create", "delete", "enable"])
@pytest.mark.parametrize("kind", ["drop", "503", "stall"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_anywhere_the_same_command_finishes_it(
    kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch, step: str, kind: str, when: str
) -> None:
    """Whichever request fails or loses its answer, at most one can fire, and running again leaves exactly the one wanted."""
    from pipelines.kubeflow import connection as kfp_client

    schedule(cluster)
    monkeypatch.setattr(kfp_client, "TIMEOUT", (0.3, 0.3))
    method, path = {"create": ("POST", "recurringruns"), "delete": ("DELETE", ""), "enable": ("POST", ":enable")}[step]
    fault = Fault(
        "status" if kind == "503" else kind, 503, when=when, method=method, contains=path, times=6, seconds=0.4
    )
    kubeflow.fail(fault)
    codes = [schedule(cluster, "--set", "seed=1")]
    enabled = [r for r in kubeflow.recurring_runs.values() if r["status"] == "ENABLED"]
    fault.times = 0
    codes.append(schedule(cluster, "--set", "seed=1"))

    made = the_schedule(kubeflow)
    assert len(enabled) <= 1
    assert codes[0] in (0, 69, 75)
    assert [0, 1, "ENABLED"] == [codes[1], made["runtime_config"]["parameters"]["seed"], made["status"]]


def test_a_lost_answer_to_creation_doubles_nothing(kubeflow: FakeKfpApi, cluster: str) -> None:
    """The recurring run whose answer was lost is found and enabled in the same command."""
    kubeflow.fail(Fault("drop", method="POST", contains="/recurringruns", when="after"))

    assert 0 == schedule(cluster)
    assert "ENABLED" == the_schedule(kubeflow)["status"]


@pytest.mark.parametrize(("status", "code"), [(401, 78), (403, 77), (404, 78), (429, 75), (500, 69), (503, 69)])
def test_failures_of_the_server_have_their_codes(
    kubeflow: FakeKfpApi, cluster: str, capsys: pytest.CaptureFixture, status: int, code: int
) -> None:
    """One line, the right exit code, and the same command works afterwards."""
    fault = Fault("status", status=status, contains="/recurringruns", times=-1)
    kubeflow.fail(fault)

    assert code == schedule(cluster)
    assert 1 == sum(line.startswith(f"ERROR {code} schedule: ") for line in capsys.readouterr().err.splitlines())
    fault.times = 0
    assert 0 == schedule(cluster)
    assert "ENABLED" == the_schedule(kubeflow)["status"]


def test_with_namespaces_only_the_teams_own_is_touched(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Another team's recurring run of the same name stays."""
    kubeflow.multi_user = True
    schedule(cluster)
    other = {**the_schedule(kubeflow), "recurring_run_id": "theirs", "namespace": "other", "status": "DISABLED"}
    kubeflow.recurring_runs["theirs"] = other

    assert 0 == schedule(cluster, "--set", "seed=1")
    assert ["kubeflow", "other"] == sorted(r["namespace"] for r in kubeflow.recurring_runs.values())
    assert other == kubeflow.recurring_runs["theirs"]


def test_caching_cannot_make_a_retraining_do_nothing(compiled: Path) -> None:
    """Only steps are cached whose inputs say which data it is: the plan always runs and puts the data's version in them."""
    import yaml

    spec = next(yaml.safe_load_all(compiled.read_text()))
    tasks = {name: task for part in ({"root": spec["root"]}, spec["components"]) for component in part.values()
             for name, task in component.get("dag", {}).get("tasks", {}).items()}  # fmt: skip
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}

    assert set() == cached & {"plan", "search-mlp", "search-resnet18", "report", "promote"}
    assert "{{$.pipeline_job_uuid}}" == tasks["plan"]["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"]
