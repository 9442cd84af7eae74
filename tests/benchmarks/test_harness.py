import json

import pytest

from benchmarks.harness import interleaved, row, table
from benchmarks.pipeline import busy_seconds


def test_a_higher_rate_and_a_lower_time_are_both_better():
    """A ratio above one always means better than the baseline, whatever the unit."""
    rate = row("training", "images/s", [90, 100, 500], "tutorial", [50, 50, 50])
    latency = row("inference", "ms", [2], "tutorial", [6])

    assert (100, 90, 500) == (rate.value, rate.low, rate.high)
    assert 2.0 == rate.ratio
    assert 3.0 == latency.ratio
    assert row("load", "ms", [1]).ratio is None


def test_measurements_take_turns():
    """A busy minute hits what is measured and its baseline alike."""
    calls = []

    values = interleaved(2, lambda: calls.append("ours") or 1.0, lambda: calls.append("theirs") or 2.0)

    assert ["ours", "theirs", "ours", "theirs"] == calls
    assert [[1.0, 1.0], [2.0, 2.0]] == values


def test_table_says_on_which_machine():
    """A figure stands under date, commit, hardware and load."""
    machine = {"date": "2026-01-02", "commit": "abc", "cpu": "Some CPU", "cores": 2, "gpu": "", "load": [0.5, 1, 1]}

    text = table([row("training", "images/s", [1234.5], "tutorial", [100])], machine)

    assert "2026-01-02, commit abc, 2 cores of Some CPU, no GPU, load 0.5" == text.splitlines()[0]
    assert "| training | 1,234 images/s |" in text
    assert "12.35x" in text or "12.34x" in text


@pytest.mark.parametrize(("times", "busy"), [((0, 4, 6, 9), 7), ((0, 1, 1, 2), 2)])
def test_busy_time_counts_parallel_steps_once(times, busy):
    """What two steps do at the same time is no overhead, and is not counted twice."""
    first, second, third, fourth = times
    events = [
        {"event": "started", "step": "a", "time": first},
        {"event": "finished", "step": "a", "time": second},
        {"event": "started", "step": "b", "time": third},
        {"event": "finished", "step": "b", "time": fourth},
    ]
    overlapping = [*events[:1], {"event": "started", "step": "c", "time": first}, *events[1:]]
    overlapping.insert(2, {"event": "finished", "step": "c", "time": first})

    assert (busy, 2) == busy_seconds("\n".join(map(json.dumps, events)))
    assert (busy, 3) == busy_seconds("\n".join(map(json.dumps, overlapping)))
