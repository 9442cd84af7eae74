"""A year of challenges on the same images: how often a model that is not better is promoted, and how soon one that is."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.champion.challenges import ERROR_RATE, Challenges, next_alpha
from components.evaluation.comparison import exact_p_better
from components.stores import open_store

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
NUM_YEARS = 5_000


@pytest.fixture
def challenges(tmp_path: Path) -> Challenges:
    return Challenges(open_store(str(tmp_path)))


def draw(
    rng: np.random.Generator, num_images: int, discordant: float, gain: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Return p-values of challengers that are better by `gain` and differ from the champion on a share of the images."""
    differing = rng.binomial(num_images, discordant, shape)
    gained = rng.binomial(differing, 0.5 + gain / discordant / 2)
    return exact_p_better(gained, differing - gained)


@pytest.mark.parametrize(("num_images", "discordant"), [(6_614, 0.024), (6_614, 0.1), (1_000, 0.05)])
@pytest.mark.parametrize("per_year", [52, 365])
def test_a_year_seldom_promotes_an_equal(num_images: int, discordant: float, per_year: int) -> None:
    """At a challenge a week, or a day, at most 5 of 100 years see a promotion of a model that is equally good."""
    rng = np.random.default_rng(num_images + per_year)
    num_years = NUM_YEARS * 52 // per_year
    p_values = draw(rng, num_images, discordant, 0.0, (num_years, per_year))
    worse = draw(rng, num_images, discordant, -0.001, (num_years, per_year))
    alphas = np.array([next_alpha(n) for n in range(per_year)])

    wrong, wrong_worse = (float((p <= alphas).any(axis=1).mean()) for p in (p_values, worse))
    assert wrong <= ERROR_RATE
    assert wrong_worse <= wrong
    assert float((p_values < 0.025).any(axis=1).mean()) > 0.25  # what a test at 0.025 each time would do


def test_the_first_year_and_every_later_one_keep_the_rate() -> None:
    """Over five years of weekly challenges no window of 365 days spends more than 0.05, whatever depends on what."""
    alphas = np.array([next_alpha(min(week, 52)) for week in range(5 * 52)])

    assert max(alphas[start : start + 53].sum() for start in range(len(alphas))) <= ERROR_RATE
    assert sum(next_alpha(n) for n in range(1_000_000)) <= ERROR_RATE


@pytest.mark.parametrize("num_before", [0, 1, 26, 52])
def test_a_better_model_is_promoted_within_two_challenges(num_before: int) -> None:
    """A model better by a point gets through by the second try at least 9 times of 10, at the year's end as at its start."""
    rng = np.random.default_rng(num_before)
    p_values = draw(rng, 6_614, 0.024, 0.01, (4 * NUM_YEARS, 2))

    promoted = (p_values <= [next_alpha(num_before), next_alpha(num_before + 1)]).any(axis=1)
    assert promoted.mean() > 0.98
    assert (p_values[:, 0] <= next_alpha(num_before)).mean() > 0.95


def test_the_table_in_the_documentation(pytestconfig: pytest.Config) -> None:
    """docs/verdict.md states what a challenger has to show: every figure of its table within two points of a simulation."""
    text = (pytestconfig.rootpath / "docs/verdict.md").read_text(encoding="utf-8")
    table = text.split("| test images | differ on |")[1].split("\n\n")[0].splitlines()[2:]
    rng = np.random.default_rng(5)

    assert len(table) >= 6
    for line in table:
        images, discordant, year, *stated = (cell.strip() for cell in line.strip("|").split("|"))
        num_images, share = int(images.replace(",", "")), float(discordant.removesuffix(" %")) / 100
        equal = (draw(rng, num_images, share, 0.0, (NUM_YEARS, 52)) <= [next_alpha(n) for n in range(52)]).any(axis=1)
        assert abs(equal.mean() - float(year)) <= 0.008
        for gain, promoted in zip((0.005, 0.01, 0.02), stated, strict=True):
            p_values = draw(rng, num_images, share, gain, (4 * NUM_YEARS,))
            assert abs((p_values <= next_alpha(52)).mean() - float(promoted)) <= 0.02


def test_each_challenge_of_a_year_may_spend_less(challenges: Challenges) -> None:
    """The store counts: after n challenges in 365 days the next one gets the n-th part of the year's error rate."""
    for week in range(5):
        found = challenges.open((b"champion", b"%d" % week), {"challenger": str(week)}, NOW + timedelta(weeks=week))
        assert (week, next_alpha(week)) == (found["num_before"], found["alpha"])


def test_what_is_older_than_a_year_counts_no_more(challenges: Challenges) -> None:
    """A challenge of 366 days ago has given its part back."""
    for day in (0, 1, 200):
        challenges.open((b"champion", b"%d" % day), {}, NOW + timedelta(days=day))

    assert 1 == challenges.open((b"new",), {}, NOW + timedelta(days=366, hours=12))["num_before"]


def test_the_same_challenge_spends_once(tmp_path: Path) -> None:
    """The same pair gets the same record, in another process and after other challenges."""
    first = Challenges(open_store(str(tmp_path))).open((b"a", b"b"), {}, NOW)
    Challenges(open_store(str(tmp_path))).open((b"a", b"c"), {}, NOW)

    assert first == Challenges(open_store(str(tmp_path))).open((b"a", b"b"), {}, NOW + timedelta(days=300))
    assert 2 == len(list((tmp_path / "challenges").iterdir()))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"alpha": 0.001}', b'{"alpha": 2, "created": "2026-03-02T03:00:00+00:00"}']
)
def test_a_damaged_record_counts(tmp_path: Path, content: bytes) -> None:
    """What cannot be read gives nothing back: it counts as a challenge of this year."""
    folder = tmp_path / "challenges"
    folder.mkdir()
    (folder / "000001.json").write_bytes(content)

    assert 1 == Challenges(open_store(str(tmp_path))).open((b"a",), {}, NOW)["num_before"]


def test_challenges_at_once_are_counted_one_after_another(tmp_path: Path) -> None:
    """Of many at the same time no two spend the same part."""
    number = 12
    barrier = threading.Barrier(number)

    def one(place: int) -> int:
        challenges = Challenges(open_store(str(tmp_path)))
        barrier.wait()
        return challenges.open((b"%d" % place,), {}, NOW)["num_before"]

    with ThreadPoolExecutor(number) as pool:
        assert list(range(number)) == sorted(pool.map(one, range(number)))
    assert number == len({json.loads(p.read_text())["nonce"] for p in (tmp_path / "challenges").iterdir()})
