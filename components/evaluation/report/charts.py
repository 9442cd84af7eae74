"""Each function draws one of the report's charts as inline SVG from plain results."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from components.approaches import APPROACHES
from components.evaluation.comparison import Comparison
from components.evaluation.evaluate import Evaluation
from components.evaluation.report.svg import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SCALE,
    figure,
    label_width,
    series,
    styled,
    to_svg,
)
from components.search.tables import best_so_far, hyperparameter_names, is_scored
from components.search.trial import Ledger
from components.text import approach_name, clean, duration, percent, points, short_names

LABEL_LENGTH = 26
MAX_AXES = 14
MAX_CLASSES = 60
"""Classes of a chart at most."""

BANDS = (0.5, 0.75, 0.9, 0.97)
"""Shares of trials, from the worst, at which parallel coordinates change colour: most lines are background."""

PLATE = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.82, "pad": 1.2}
"""What keeps a text readable that stands on lines."""


@styled
def differences(comparisons: Sequence[Comparison]) -> Markup:
    """Draw the accuracy difference of each dataset with its interval against zero."""
    height = 74 + 34 * len(comparisons)
    made = figure(640, height)
    axes = made.add_axes((0.22, 46 / height, 0.75, 1 - 74 / height))
    rows = np.arange(len(comparisons))[::-1]
    reach = 1.15 * max(100 * abs(end) for c in comparisons for end in c.accuracy_difference_ci95) or 1.0
    axes.axvline(0, color=MUTED, linewidth=1)
    for row, c in zip(rows, comparisons, strict=True):
        low, high = (100 * end for end in c.accuracy_difference_ci95)
        colour = series(c.winner) if c.winner else MUTED
        axes.plot([low, high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot([100 * c.accuracy_difference], [row], marker="o", markersize=8, color=colour, markeredgecolor=PAPER)
    names = [clean(c.dataset) for c in comparisons]
    labels = _fitted(axes, names, [""] * len(names))
    axes.set_yticks(rows, labels)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(comparisons) - 0.4))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{abs(x):g}"))
    first, second = comparisons[0].first, comparisons[0].second
    axes.set_xlabel("accuracy points, with 95 % interval")
    axes.text(0, 1.02, f"◀ {approach_name(second)} better", transform=axes.transAxes, color=series(second), va="bottom")
    axes.text(
        1,
        1.02,
        f"{approach_name(first)} better ▶",
        transform=axes.transAxes,
        color=series(first),
        ha="right",
        va="bottom",
    )
    said = "; ".join(
        f"{clean(c.dataset, 60)} {points(c.accuracy_difference)} points"
        f" {'for ' + approach_name(c.winner) if c.winner else 'undecided'}"
        for c in comparisons
    )
    titles = {label: name for label, name in zip(labels, names, strict=True) if label != name}
    return to_svg(made, f"Accuracy differences with 95 % intervals: {said}", titles)


def _fitted(axes: Axes, names: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Return each name with its note as a label; a name is shortened until its label has room on the left of the axes."""
    room, labels = axes.bbox.x0 - 8, []
    for place, note in enumerate(notes):
        for length in range(LABEL_LENGTH, 4, -1):
            label = short_names(names, length)[place] + note
            if label_width(label) <= room:
                break
        labels.append(label)
    return labels


@styled
def search_progress(ledgers: dict[str, Ledger], title: str, *, over_time: bool) -> Markup | None:
    """Draw the best validation score found so far; None without a usable trial.

    Args:
        ledgers: The study of each approach.
        title: The dataset.
        over_time: Over device time instead of over trials.
    """
    with_score = {approach: ledger for approach, ledger in ledgers.items() if ledger.best()}
    if not with_score:
        return None
    made = figure(560, 320)
    axes = made.add_axes((0.14, 0.15, 0.83, 0.74))
    longest = max(ledger.device_seconds for ledger in with_score.values())
    unit, unit_seconds = ("minutes", 60.0) if longest >= 180 else ("seconds", 1.0)
    lows = []
    for approach, ledger in with_score.items():
        course = best_so_far(ledger)
        scored = {t.number: t.score for t in ledger.trials if is_scored(t)}
        dots = [(p.device_seconds / unit_seconds if over_time else p.number + 1, scored.get(p.number)) for p in course]
        where, best = [x for x, _ in dots], [p.best for p in course]
        lows.append(best[0])
        colour = series(approach)
        axes.plot(
            where,
            [np.nan if y is None else y for _, y in dots],
            ".",
            color=colour,
            alpha=0.35,
            markersize=5,
            markeredgewidth=0,
        )
        axes.step(where, best, where="post", color=colour, linewidth=2)
        axes.plot(where[-1:], best[-1:], "o", color=colour, markersize=6, label=approach_name(approach))
    axes.set_xlabel(f"device {unit}" if over_time else "trials")
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)
    if not over_time:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.set_ylabel("validation accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    highest = {a: max(t.accuracy for t in ledger.trials if is_scored(t)) for a, ledger in with_score.items()}
    top = max(highest.values())
    floor = min(lows) - 0.35 * max(top - min(lows), 0.03)
    axes.set_ylim(max(0.0, floor), min(1.0, top + 0.12 * max(top - floor, 0.01)))
    _legend(axes)
    said = "; ".join(
        f"{approach_name(a)} reached {percent(highest[a])} after {len(ledger.trials)} trials and"
        f" {duration(ledger.device_seconds)}"
        for a, ledger in with_score.items()
    )
    return to_svg(made, f"Best validation accuracy so far on {title} over {axes.get_xlabel()}: {said}")


def _legend(axes: Axes) -> None:
    """Put the legend above the plot, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.1, handletextpad=0.4)


@styled
def parallel_coordinates(ledger: Ledger, approach: str, title: str) -> Markup | None:
    """Draw every usable trial as a line over its hyperparameters, coloured by score; None without one."""
    usable = sorted(filter(is_scored, ledger.trials), key=lambda t: t.accuracy)
    names = [n for n in hyperparameter_names(ledger) if any(n in t.hyperparameters for t in usable)][:MAX_AXES]
    if not names:
        return None
    declared = {row["name"]: row for row in ledger.spec.get("space", ()) if isinstance(row, dict) and "name" in row}
    scores = np.asarray([t.score for t in usable])
    columns, ticks = [], []
    for name in names:
        heights, marks = _axis([t.hyperparameters.get(name) for t in usable], declared.get(name, {}))
        columns.append(heights)
        ticks.append(marks)
    low, high = float(scores.min()), float(scores.max())
    columns.append((scores - low) / (high - low) if high > low else np.full(len(scores), 0.5))
    ticks.append([(0.0, percent(low)), (1.0, percent(high))] if high > low else [(0.5, percent(low))])
    names = [*names, "validation accuracy"]
    heights = np.stack(columns, axis=1)
    made = figure(min(max(760, 150 * len(names)), 1120), 360)
    axes = made.add_axes((0.045, 0.05, 0.9, 0.8))
    lines = np.stack([np.broadcast_to(np.arange(len(names), dtype=float), heights.shape), heights], axis=2)
    bands = np.searchsorted(BANDS, np.arange(len(usable)) / len(usable), side="right")
    for band, colour in enumerate(SCALE):
        chosen = lines[bands == band]
        if len(chosen):
            width, alpha = (0.8, 0.55) if band < 3 else (1.3, 0.9)
            axes.add_collection(LineCollection(chosen, colors=colour, linewidths=width, alpha=alpha))
    axes.plot(np.arange(len(names)), heights[-1], color=INK, linewidth=2.4, marker="o", markersize=5)
    for place, (name, marks) in enumerate(zip(names, ticks, strict=True)):
        axes.axvline(place, color=MUTED, linewidth=0.8)
        axes.text(place, 1.1, clean(name.replace("_", " "), 20), ha="center", va="bottom", color=INK, fontsize=8.5)
        for height, text in marks:
            axes.text(
                place + 0.035, height, text, ha="left", va="center", fontsize=7.5, color=INK, bbox=PLATE, zorder=5
            )  # fmt: skip
    axes.set(xlim=(-0.15, len(names) - 0.65), ylim=(-0.06, 1.06))
    axes.axis("off")
    best = ", ".join(f"{clean(k, 30)} {_short(v)}" for k, v in usable[-1].hyperparameters.items())
    return to_svg(
        made,
        f"Hyperparameters of {len(usable)} trials of {approach_name(approach)} on {title}; the best, with"
        f" {percent(high)} validation accuracy, has {best}",
    )


def _axis(values: list[Any], declared: dict[str, Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return heights 0..1 (NaN where the parameter was not active) and labelled ticks of one hyperparameter."""
    present = [v for v in values if v is not None]
    numeric = not declared.get("choices") and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in present
    )
    if numeric:
        numbers = np.asarray([np.nan if v is None else float(v) for v in values])
        low, high = declared.get("low"), declared.get("high")
        low = np.nanmin(numbers) if low is None else min(float(low), float(np.nanmin(numbers)))
        high = np.nanmax(numbers) if high is None else max(float(high), float(np.nanmax(numbers)))
        scale = np.log if declared.get("log") and low > 0 else np.asarray
        if not high > low:
            return np.where(np.isnan(numbers), np.nan, 0.5), [(0.5, _short(low))]
        heights = (scale(numbers) - scale(low)) / (scale(high) - scale(low))
        middle = np.sqrt(low * high) if declared.get("log") and low > 0 else (low + high) / 2
        return heights, [(0.0, _short(low)), (0.5, _short(middle)), (1.0, _short(high))]
    choices = list(dict.fromkeys([*declared.get("choices", ()), *sorted(present, key=str)]))
    place = {choice: (k + 0.5) / len(choices) for k, choice in enumerate(choices)}
    # A fixed fan around each choice keeps lines that share it apart.
    fan = itertools.cycle(np.linspace(-0.3, 0.3, 9) / len(choices))
    heights = np.asarray([np.nan if v is None else place[v] + next(fan) for v in values])
    return heights, [(place[c], clean(c, 14)) for c in choices[:12]]


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        return clean(value, 20)
    return f"{value:.3g}" if abs(float(value)) < 1000 else f"{value:,.0f}"


@styled
def class_differences(first: Evaluation, second: Evaluation) -> Markup:
    """Draw each class's F1 of both approaches, sorted by the difference; classes without test images are left out.

    Of more than `MAX_CLASSES` those with the largest differences either way are drawn.
    """
    rows = [
        (name, a["f1"], b["f1"], a["support"], whole)
        for name, whole, a, b in zip(
            short_names(first.classes, LABEL_LENGTH),
            first.classes,
            first.record["scores"]["per_class"],
            second.record["scores"]["per_class"],
            strict=True,
        )
        if a["support"]
    ]
    rows.sort(key=lambda row: (row[1] - row[2], row[0]))
    if len(rows) > MAX_CLASSES:
        rows = rows[: MAX_CLASSES // 2] + rows[-MAX_CLASSES // 2 :]
    height = 78 + 19 * len(rows)
    made = figure(720, height)
    axes = made.add_axes((0.31, 44 / height, 0.66, 1 - 78 / height))
    places = np.arange(len(rows))
    ones, others = np.asarray([r[1] for r in rows]), np.asarray([r[2] for r in rows])
    axes.hlines(places, np.minimum(ones, others), np.maximum(ones, others), color=MUTED, linewidth=1.6, alpha=0.6)
    left, right = min(ones.min(), others.min()) - 0.03, 1.005
    # Marks that would cover each other stand above and below the middle of the row.
    apart = np.where(np.abs(ones - others) < 0.02 * (right - left), 0.25, 0.0)
    for values, heights, approach, marker in (
        (ones, places + apart, first.approach, "o"),
        (others, places - apart, second.approach, "D"),
    ):
        axes.plot(
            values,
            heights,
            marker,
            color=series(approach),
            markersize=7 if marker == "o" else 6,
            markeredgecolor=PAPER,
            label=approach_name(approach),
            clip_on=False,
            zorder=3,
        )
    notes = [f"  ({r[3]:,})" for r in rows]
    labels = _fitted(axes, [r[0] for r in rows], notes)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(left, right), ylim=(-0.7, len(rows) - 0.3))
    axes.grid(visible=True, axis="both")
    axes.set_axisbelow(True)
    axes.set_xlabel("F1 on the test images (in brackets: how many images of the class)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)
    whole = [clean(r[4]) for r in rows]
    titles = {label: name for label, name, note in zip(labels, whole, notes, strict=True) if label != name + note}
    said = f"most in favour of {approach_name(second.approach)}: {clean(rows[0][0], 40)}; most in favour of"
    return to_svg(
        made,
        f"F1 per class on {clean(first.dataset, 60)}, sorted by difference; {said} {approach_name(first.approach)}:"
        f" {clean(rows[-1][0], 40)}",
        titles,
    )


@styled
def optimism(rows: dict[str, list[tuple[str, float, float, float]]], title: str) -> Markup | None:
    """Draw how an approach's accuracy shrinks from the search's best trial to fresh seeds to the test images.

    Args:
        rows: By approach, (stage, mean, low, high) in order.
        title: The dataset.
    """
    if not any(rows.values()):
        return None
    stages = list(dict.fromkeys(stage for row in rows.values() for stage, *_ in row))
    made = figure(640, 270)
    axes = made.add_axes((0.1, 0.12, 0.87, 0.77))
    for offset, (approach, row) in zip((-0.04, 0.04, 0.0), rows.items(), strict=False):
        if not row:
            continue
        x = np.asarray([stages.index(stage) for stage, *_ in row]) + offset
        mean, low, high = (np.asarray([r[k] for r in row]) for k in (1, 2, 3))
        axes.vlines(x, low, high, color=series(approach), linewidth=2, alpha=0.6)
        axes.plot(x, mean, "-o", color=series(approach), markersize=6, label=approach_name(approach), alpha=0.95)
        side = 1 if offset > 0 else -1
        for k, (place, value) in enumerate(zip(x, mean, strict=True)):
            # Beside its mark, and off the line to the next mark on that side.
            beneath = 0 <= k + side < len(mean) and mean[k + side] > value
            axes.annotate(
                percent(value), (place, value), (7 * side, -5 if beneath else 5), textcoords="offset points",
                ha="left" if offset > 0 else "right", va="top" if beneath else "baseline", fontsize=8,
                color=series(approach), bbox=PLATE,
            )  # fmt: skip
    axes.set_xticks(range(len(stages)), stages)
    axes.set_xlim(-0.4, len(stages) - 0.6)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.margins(y=0.15)
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)
    _legend(axes)
    said = "; ".join(f"{approach_name(a)} " + " to ".join(percent(r[1]) for r in row) for a, row in rows.items() if row)
    return to_svg(made, f"Accuracy from search to test on {title}: {said}")


@styled
def history(runs: Sequence[dict[str, Any]], dataset: str) -> Markup | None:
    """Draw test accuracy over the last runs with intervals, the present run last; None with fewer than two runs."""
    recent = [run for run in runs if dataset in run["datasets"]]
    if len(recent) < 2:
        return None
    made = figure(720, 250)
    axes = made.add_axes((0.085, 0.13, 0.89, 0.75))
    for approach in APPROACHES:
        rows = [(i, run["datasets"][dataset]["approaches"].get(approach)) for i, run in enumerate(recent)]
        rows = [(i, row) for i, row in rows if row]
        if not rows:
            continue
        x = np.asarray([i for i, _ in rows])
        low, high = (np.asarray([row["accuracy_ci95"][k] for _, row in rows]) for k in (0, 1))
        axes.fill_between(x, low, high, color=series(approach), alpha=0.15, linewidth=0)
        axes.plot(x, [row["accuracy"] for _, row in rows], "-o", color=series(approach), label=approach_name(approach))
    labels = [clean(run["created"])[5:10] for run in recent]
    step = max(1, len(recent) // 8)
    axes.set_xticks(range(0, len(recent), step), labels[::step])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(visible=True, axis="y", color=GRID)
    _legend(axes)
    return to_svg(made, f"Test accuracy of the last {len(recent)} runs on {clean(dataset, 60)}")
