import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.errors import DataError
from components.evaluation.report.history import remember
from components.evaluation.report.page import page
from components.evaluation.report.report import render, write_report
from components.evaluation.report.tables import cost_sentence, default_sentence, seeds_sentence
from components.evaluation.summary import DatasetResults, collect, summarise
from components.search.trial import Ledger
from tests.evaluation.builders import (
    make_evaluation,
    make_ledger,
    make_test_data,
    save_evaluation,
    write_ingest_report,
)
from tests.evaluation.page_check import Page, assert_harmless

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</style><style>*{display:none}",
    "{{7*7}}{% raw %}",
    "\u202ereversed",
    "x" * 10_000,
    "👗 dress",
    "nul\x00byte",
    "<!-- --> ]]> &amp;",
    "$\\frac{1}{2}$",
    "| pipe | `code` [link](http://example.org)",
)


class Written:
    """A report of generated artifacts, and what became of it."""

    def __init__(
        self,
        directory: Path,
        *,
        datasets: tuple[str, ...] = ("fashion-mnist",),
        classes: tuple[str, ...] = ("shirt", "trouser", "bag"),
        approaches: tuple[str, ...] = ("mlp", "resnet18"),
        num_trials: int = 12,
        num_examples: int = 300,
        run_id: str = "run-1",
        error: str = "",
        history: str = "",
        parameters: dict | None = None,
    ):
        evaluations, ingests, tests = [], [], []
        for place, dataset in enumerate(datasets):
            data = make_test_data(dataset, classes, num_examples)
            folder = directory / f"set-{place}"
            data.save(folder / "test")
            tests.append(folder / "test")
            ingests.append(write_ingest_report(folder / "ingest", data))
            for seed, approach in enumerate(approaches):
                ledger = make_ledger(num_trials, approach, dataset, error)
                made = make_evaluation(
                    approach,
                    accuracy=0.7 + 0.2 * seed,
                    seed=seed,
                    dataset=dataset,
                    classes=classes,
                    num_examples=num_examples,
                    ledger=ledger,
                )
                evaluations.append(save_evaluation(made, folder / approach))
        self.inputs = {"evaluation_dirs": evaluations, "ingest_report_dirs": ingests, "test_dirs": tests}
        self.directory = directory
        self.write(run_id, history, parameters or {"seed": 0, "data_datasets": list(datasets)})

    def write(self, run_id: str, history: str, parameters: dict) -> None:
        html, summary, markdown = (self.directory / n for n in ("report.html", "summary.json", "report.md"))
        started = time.process_time()
        self.summary = write_report(
            **self.inputs,
            parameters=parameters,
            run={"id": run_id},
            history=history,
            html_path=html,
            summary_path=summary,
            markdown_path=markdown,
        )
        self.cpu_seconds = time.process_time() - started
        self.html, self.markdown = html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")
        self.on_disk = json.loads(summary.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """An ordinary report, for tests that only read it."""
    return Written(tmp_path_factory.mktemp("report"), datasets=("fashion-mnist", "own"))


def test_the_report_holds_everything_and_asks_for_nothing(written: Written) -> None:
    """The page starts with the verdict, has every section, and is harmless on its own."""
    page = Page(written.html)
    assert_harmless(page)
    verdict = written.summary["datasets"]["fashion-mnist"]["comparison"]["verdict"]
    assert page.text.index(verdict) < page.text.index("Figures on the held-out images")
    for section in (
        "How much of it was luck",
        "The searches",
        "Hyperparameters",
        "Classes, sorted by the difference",
        "Most frequent confusions",
        "Confusion matrix of MLP",
        "Only ResNet18 is right",
        "Most confident mistakes of MLP",
        "Data",
        "Budget",
        "Reproduce",
        "Method",
    ):
        assert section in page.text
    assert 1 + 2 * 6 == page.tags["svg"]
    assert page.tags["img"] >= 48


def test_the_summary_has_the_fixed_schema(written: Written) -> None:
    """`summary.json` has exactly the keys of schema version 1, with drift where ingest warned; the file equals what was returned."""
    assert written.summary == written.on_disk
    assert {"schema", "parameters", "datasets"} == set(written.summary)
    assert 1 == written.summary["schema"]
    part = written.summary["datasets"]["fashion-mnist"]
    assert {"data", "approaches", "comparison", "champion"} == set(part)
    counts = {"train", "validation", "test", "quarantined", "repaired", "duplicate_groups"}
    assert {"hash", "classes", "drift"} | counts == set(part["data"])
    assert {"winner", "accuracy_difference", "accuracy_difference_ci95", "mcnemar_p", "verdict"} == set(
        part["comparison"]
    )
    assert {"decision", "version"} == set(part["champion"])
    assert {"mlp", "resnet18"} == set(part["approaches"])
    approach = part["approaches"]["mlp"]
    assert {
        "accuracy",
        "accuracy_ci95",
        "macro_f1",
        "macro_f1_ci95",
        "weighted_f1",
        "per_class",
        "replicates",
        "validation_accuracy",
        "best_hyperparameters",
        "trials",
        "device_seconds",
        "parameters",
        "model_bytes",
        "latency_ms",
    } == set(approach)
    assert {"precision", "recall", "f1", "support"} == set(approach["per_class"]["shirt"])
    assert {"seed", "accuracy", "macro_f1"} == set(approach["replicates"][0])
    assert {"completed": 6, "pruned": 2, "failed": 2, "diverged": 2} == approach["trials"]
    assert {"search", "train"} == set(approach["device_seconds"])
    assert {"batch_1", "batch_256"} == set(approach["latency_ms"])
    difference = approach["accuracy"] - part["approaches"]["resnet18"]["accuracy"]
    assert difference == pytest.approx(part["comparison"]["accuracy_difference"])


@pytest.mark.parametrize("num_trials", [0, 1, 500])
def test_any_number_of_trials_makes_a_report(tmp_path: Path, num_trials: int) -> None:
    """None, one and five hundred trials give a whole page."""
    assert_harmless(Page(Written(tmp_path, num_trials=num_trials).html))


def test_a_large_report_is_small_and_quick(tmp_path: Path) -> None:
    """Two datasets, 45 classes, 500 trials each: at most 3 MB and 5 seconds."""
    classes = tuple(f"subcategory {k}" for k in range(45))

    written = Written(tmp_path, datasets=("a", "b"), classes=classes, num_trials=500, num_examples=2000)

    assert_harmless(Page(written.html))
    assert len(written.html.encode()) <= 3_000_000
    assert written.cpu_seconds < 5


def test_thousands_of_classes_make_a_page_that_says_what_it_leaves_out(tmp_path: Path) -> None:
    """2,000 classes: a page as small as any, names that differ, every class in the summary."""
    classes = tuple(f"Home > Department {k % 9} > A rather long name of a section > Class {k}" for k in range(2000))

    written = Written(tmp_path, classes=classes, num_examples=6000)

    page = Page(written.html)
    assert_harmless(page)
    assert len(written.html.encode()) <= 1_500_000
    assert written.cpu_seconds < 20
    assert "Of 2,000 classes the 60 with the largest differences" in page.text
    assert "the 200 largest of 2,000 classes" in page.text
    assert set(classes) == set(written.summary["datasets"]["fashion-mnist"]["approaches"]["mlp"]["per_class"])


@pytest.mark.parametrize("classes", [("a", "b"), tuple(f"class {k}" for k in range(45))])
def test_few_and_many_classes_make_a_report(tmp_path: Path, classes: tuple[str, ...]) -> None:
    """Two classes and forty-five, some of them without a single test image."""
    written = Written(tmp_path, classes=classes, num_examples=60)

    page = Page(written.html)
    assert_harmless(page)
    assert ("n/a" in page.text) == (len(classes) == 45)


@pytest.mark.parametrize("approaches", [("mlp",), ("resnet18",), ()])
def test_a_missing_approach_is_said_plainly(tmp_path: Path, approaches: tuple[str, ...]) -> None:
    """Without both models nothing is compared: no winner, no numbers, and every output says which one is missing."""
    written = Written(tmp_path, approaches=approaches)

    comparison = written.summary["datasets"]["fashion-mnist"]["comparison"]
    assert [None] * 4 == [value for key, value in comparison.items() if key != "verdict"]
    assert "there is nothing to compare" in comparison["verdict"]
    assert set(approaches) == set(written.summary["datasets"]["fashion-mnist"]["approaches"])
    page = Page(written.html)
    assert_harmless(page)
    assert comparison["verdict"] in page.text
    assert 2 - len(approaches) == written.markdown.count("no model")


def test_of_three_approaches_the_two_best_are_compared(tmp_path: Path) -> None:
    """Validation accuracy chooses the two, all three have their figures."""
    written = Written(tmp_path, approaches=("mlp", "resnet18", "softmax"))
    directories = written.inputs["evaluation_dirs"]
    validation = {"mlp": 0.8, "resnet18": 0.9, "softmax": 0.85}
    for directory, (approach, accuracy) in zip(directories, validation.items(), strict=True):
        record = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
        assert approach == record["model"]["approach"]
        record["model"]["validation_accuracy"] = accuracy
        (directory / "evaluation.json").write_text(json.dumps(record), encoding="utf-8")
    written.write("run-1", "", {"seed": 0, "data_datasets": ["fashion-mnist"]})

    part = written.summary["datasets"]["fashion-mnist"]
    page = Page(written.html)
    assert set(validation) == set(part["approaches"])
    assert "ResNet18" in part["comparison"]["verdict"]
    assert "softmax" in part["comparison"]["verdict"]
    assert "MLP" not in part["comparison"]["verdict"]
    assert_harmless(page)


def test_a_run_without_datasets_still_has_a_page(tmp_path: Path) -> None:
    """Nothing ingested gives a page that says so, not a traceback."""
    written = Written(tmp_path, datasets=())

    assert_harmless(Page(written.html))
    assert {} == written.summary["datasets"]


def test_artifacts_arrive_in_any_order(written: Written) -> None:
    """Reversed lists give the same summary."""
    backwards = {name: list(reversed(paths)) for name, paths in written.inputs.items()}

    found = summarise(collect(**backwards), written.summary["parameters"])

    assert written.summary == found


def test_hostile_names_stay_text_everywhere(tmp_path: Path) -> None:
    """Class, run, parameter and error texts cannot become elements, attributes, links or formatting."""
    plain = Page(Written(tmp_path / "plain", classes=tuple("abcdefghijkl"), datasets=("plain",)).html)
    parameters = {"seed": 0, "data_datasets": [HOSTILE[0]], HOSTILE[1]: HOSTILE[2]}

    written = Written(
        tmp_path / "hostile",
        datasets=(HOSTILE[0],),
        classes=HOSTILE,
        run_id=" ".join(HOSTILE),
        error=HOSTILE[1],
        parameters=parameters,
    )

    page = Page(written.html)
    assert_harmless(page)
    assert {t: n for t, n in plain.tags.items() if t in ("script", "style", "meta")} == {
        t: n for t, n in page.tags.items() if t in ("script", "style", "meta")
    }
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "49" not in written.summary["datasets"][HOSTILE[0]]["comparison"]["verdict"]
    for character in ("\x00", "\u202e"):
        assert character not in written.html
        assert character not in written.markdown
    assert "x" * 400 not in written.html
    assert "<script" not in written.markdown.replace("\\<", "")
    assert "](http" not in written.markdown.replace("\\]\\(", "")


def test_history_grows_by_one_per_run(tmp_path: Path) -> None:
    """A second run shows the first; a step that runs again is not counted twice."""
    written = Written(tmp_path, history=str(tmp_path / "store"))
    for run_id in ("run-2", "run-2"):
        written.write(run_id, str(tmp_path / "store"), {})

    keys = sorted(p.name for p in (tmp_path / "store" / "reports").iterdir())
    assert 2 == len(keys)
    page = Page(written.html)
    assert "The last runs" in page.text
    assert all(run_id in page.text for run_id in ("run-1", "run-2"))


def test_a_run_that_goes_on_adds_its_new_figures(tmp_path: Path, written: Written) -> None:
    """A local run keeps its name; the same figures count once, new ones are a new entry."""
    better = json.loads(json.dumps(written.summary))
    better["datasets"]["own"]["approaches"]["mlp"]["accuracy"] += 0.01
    now = datetime.now(UTC)

    for summary in (written.summary, written.summary, better):
        rows, _ = remember(str(tmp_path), "local", now, summary)

    assert 2 == len(rows)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"datasets": {"a": 1}}', '{"created": 5, "run": 1, "datasets": {}}']
)
def test_a_damaged_history_entry_is_skipped(tmp_path: Path, content: str, written: Written) -> None:
    """What earlier runs left behind cannot stop the report."""
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "20260101T000000Z-aaaaaaaaaaaa.json").write_text(content)

    rows, note = remember(str(tmp_path), "run", datetime.now(UTC), written.summary)

    assert (["run"], "") == ([row["run"] for row in rows], note)


def test_a_store_that_fails_costs_the_history_only(tmp_path: Path) -> None:
    """A history that cannot be written is a note on the page."""
    (tmp_path / "file").write_text("in the way")

    written = Written(tmp_path, history=str(tmp_path / "file"), num_trials=1)

    assert "The scores of earlier runs could not be read" in Page(written.html).text


def test_evaluations_of_different_test_data_stop_the_report(tmp_path: Path) -> None:
    """Two approaches scored on different images are an error, not a comparison."""
    one = save_evaluation(make_evaluation("mlp", data_seed=0), tmp_path / "one")
    other = save_evaluation(make_evaluation("resnet18", data_seed=1), tmp_path / "other")

    with pytest.raises(DataError, match="must be of the same test images"):
        collect([one, other], [], [])


def test_the_same_inputs_give_the_same_page_but_for_the_time(tmp_path: Path) -> None:
    """Charts, intervals and pictures do not change when the step runs again."""
    written = Written(tmp_path)
    once = written.html

    written.write("run-1", "", written.summary["parameters"])

    first, second = ([line for line in html.splitlines() if " UTC" not in line] for html in (once, written.html))
    assert first == second


def test_the_data_section_tells_findings_and_drift(written: Written) -> None:
    """What ingest found and what changed since the ingest before are on the page."""
    text = Page(written.html).text

    assert "20.0% of the images moved between classes" in text
    assert "+500 images (there were 900)" in text
    assert "where styles.csv line 7; reason empty label; value 12,," in text
    assert "3 images were turned upright" in text
    assert "Images per class and split" in text


def test_the_best_of_a_study_is_what_the_ledger_says(written: Written) -> None:
    """The winner's curse starts from the score of the study's best trial."""
    ledger = Ledger.load(written.directory / "set-0" / "mlp" / "study.json")
    assert f"{100 * ledger.best().score:.1f} %" in written.html


def test_the_markdown_has_the_verdict_and_a_row_per_approach(written: Written) -> None:
    """The step's own page gives verdict and headline figures in a few lines."""
    assert written.markdown.startswith("# MLP or ResNet18\n")
    assert 2 == written.markdown.count("**On ")
    assert 4 == sum(line.startswith(("| fashion-mnist |", "| own |")) for line in written.markdown.splitlines())


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "expected"),
    [
        ((60.0, 900.0), (0.1, 2.0), "ResNet18 used 15 times the device time of MLP"),
        ((900.0, 60.0), (0.1, 2.0), "takes 5 % of the time to classify"),
        ((60.0, 61.0), (0.1, 0.1), "Both used about the same device time"),
        ((60.0, 150.0), (0.1, 0.25), "used 2.5 times the device time of MLP"),
        ((0.0, 0.0), (0.1, 0.1), ""),
    ],
)
def test_the_cost_is_said_in_units_of_the_cheaper_approach(
    seconds: tuple[float, float], milliseconds: tuple[float, float], expected: str
) -> None:
    """One sentence relates device time and latency of the two, whichever costs more."""
    evaluations = [make_evaluation(approach, num_examples=30) for approach in ("mlp", "resnet18")]
    for evaluation, spent, latency in zip(evaluations, seconds, milliseconds, strict=True):
        evaluation.record["model"]["device_seconds"] = spent
        evaluation.record["latency"]["batch_1"]["median_ms"] = latency

    found = cost_sentence(evaluations)

    assert expected in found
    assert found or not expected


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        (None, ""),
        ({"is_winner": True}, "MLP: the default configuration won the search."),
        ({"is_winner": False, "error": "NaN"}, "MLP: the default configuration has no model (NaN)."),
        ((0.02, 0.01, 0.03), "differs by +2.00 points (95 % interval +1.00 to +3.00)."),
        ((0.002, -0.01, 0.014), "these images do not show that the search was worth it"),
        ((-0.02, -0.03, -0.01), "the search made it worse"),
    ],
)
def test_the_report_says_whether_the_search_was_worth_it(default: object, expected: str) -> None:
    """Beside the winner stands what the untuned defaults reach, and nothing is made of a difference within the noise."""
    if isinstance(default, tuple):
        gain, low, high = default
        default = {"is_winner": False, "accuracy": 0.85, "macro_f1": 0.8, "gain": gain, "gain_ci95": [low, high]}
    evaluation = make_evaluation("mlp")
    evaluation.record["default"] = default

    found = default_sentence(evaluation)

    assert expected in found
    assert bool(expected) == bool(found)


def test_the_default_configuration_is_in_page_and_summary() -> None:
    """Figures of the default configuration reach the table, a card of its own, and `summary.json`."""
    evaluations = [make_evaluation("mlp", accuracy=0.8, seed=1), make_evaluation("resnet18", accuracy=0.9, seed=2)]
    evaluations[0].record["default"] = {
        "hyperparameters": {},
        "is_winner": False,
        "seed": 0,
        "device_seconds": 2.0,
        "accuracy": 0.7777,
        "macro_f1": 0.7,
        "gain": 0.02,
        "gain_ci95": [0.01, 0.03],
    }
    results = [DatasetResults(name="fashion-mnist", evaluations={e.approach: e for e in evaluations})]
    html = render(page(results, {}, {"id": "r"}, [], "", datetime.now(UTC)))

    assert 2 == html.count("77.77 %")
    assert "Was the search worth its hours" in html
    summary = summarise(results, {})["datasets"]["fashion-mnist"]["approaches"]
    assert 0.7777 == summary["mlp"]["default"]["accuracy"]
    assert "default" not in summary["resnet18"]


def test_overlapping_replicates_are_said() -> None:
    """Whether another seed could change the order is a sentence of its own."""
    first, second = (make_evaluation(approach, num_examples=30) for approach in ("mlp", "resnet18"))
    for evaluation, accuracies in ((first, (0.80, 0.85)), (second, (0.84, 0.90))):
        evaluation.record["replicates"] = [{"accuracy": accuracy} for accuracy in accuracies]

    assert "the replicates overlap" in seeds_sentence([first, second])
    second.record["replicates"][0]["accuracy"] = 0.86
    assert "every replicate of ResNet18 beat every one" in seeds_sentence([first, second])
    second.record["replicates"] = second.record["replicates"][:1]
    assert "luck of the seed is not measured" in seeds_sentence([first, second])
