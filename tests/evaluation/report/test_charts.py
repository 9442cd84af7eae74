"""What can be read in a chart: labels beside lines, long names, marks at one place."""

import html
import re

import pytest

from components.evaluation.comparison import compare
from components.evaluation.report import charts
from components.evaluation.report.svg import label_width, style
from tests.evaluation.builders import make_evaluation

LONG = ("W" * 300, "連衣裙" * 100, "seamless" * 37, "<b> & " * 50, "shirt")


def labels(svg: str) -> list[str]:
    """Return the texts of a chart without their titles."""
    found = re.findall(r"<text[^>]*>(?:<title>[^<]*</title>)?([^<]*)</text>", svg)
    return [html.unescape(text) for text in found]


def marks(svg: str, approach: str) -> list[tuple[float, float]]:
    """Return where an approach's marks stand, in points from the upper left corner."""
    found = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="[^"]*fill: var\(--' + approach, svg)
    return [(float(x), float(y)) for x, y in found]


def test_shares_stand_on_a_plate_and_off_their_own_line() -> None:
    """The chart of luck writes each share on the card's colour, beneath the line where that comes from above."""
    rows = {
        "mlp": [("best", 0.867, 0.867, 0.867), ("validation", 0.858, 0.85, 0.866), ("test", 0.815, 0.80, 0.82)],
        "resnet18": [("best", 0.859, 0.859, 0.859), ("validation", 0.883, 0.88, 0.89), ("test", 0.822, 0.79, 0.86)],
    }

    svg = str(charts.optimism(rows, "shoes"))

    assert 6 == svg.count("fill: var(--card)")
    height = {text: float(y) for y, text in re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>([\d.]+ %)</text>', svg)}
    mark = dict(zip(("86.7 %", "85.8 %", "81.5 %"), marks(svg, "mlp"), strict=False))
    mark |= dict(zip(("85.9 %", "88.3 %", "82.2 %"), marks(svg, "resnet18"), strict=False))
    beneath = {share for share, (_, y) in mark.items() if height[share] > y}
    assert {"85.8 %", "81.5 %", "85.9 %"} == beneath


def test_long_class_names_are_shortened_to_their_room_and_whole_in_a_title() -> None:
    """A label is as wide as the chart's left margin at most, whatever its letters; the name of 300 characters is its title."""
    evaluations = [make_evaluation(approach, classes=LONG) for approach in ("mlp", "resnet18")]

    svg = str(charts.class_differences(*evaluations))

    names = [text for text in labels(svg) if text.endswith(")") and "  (" in text]
    assert len(LONG) == len(set(names))
    with style():
        assert 0.31 * 720 - 4 > max(map(label_width, names))
    titles = {html.unescape(title) for title in re.findall("<title>([^<]*)</title>", svg)}
    assert {name.strip() for name in LONG[:4]} == titles


def test_long_data_set_names_are_shortened_to_their_room() -> None:
    """The chart of differences does the same."""
    name = "m" * 40
    comparison = compare(*(make_evaluation(approach, dataset=name) for approach in ("mlp", "resnet18")))

    svg = str(charts.differences([comparison]))

    (label,) = (text for text in labels(svg) if text.startswith("mm"))
    with style():
        assert 0.22 * 640 - 4 > label_width(label)
    assert f"<title>{name}</title>" in svg


@pytest.mark.parametrize("f1", [0.0, 0.5, 1.0])
def test_marks_of_equal_scores_are_both_seen(f1: float) -> None:
    """Where both approaches have one F1, their marks are apart instead of one over the other."""
    evaluations = [make_evaluation(approach) for approach in ("mlp", "resnet18")]
    for evaluation, value in zip(evaluations, (f1, abs(f1 - 0.001)), strict=True):
        evaluation.record["scores"]["per_class"][0]["f1"] = value

    svg = str(charts.class_differences(*evaluations))

    pairs = zip(marks(svg, "mlp"), marks(svg, "resnet18"), strict=True)
    assert all(((x - a) ** 2 + (y - b) ** 2) ** 0.5 >= 6 for (x, y), (a, b) in pairs)
