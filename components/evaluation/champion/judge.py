"""Judges a challenger against the champion in use: both models answer for the same images, and intervals decide."""

from dataclasses import dataclass

import numpy as np

from components.data.contract import TestData
from components.errors import DataError
from components.evaluation.champion.records import ChampionRecords, Record
from components.evaluation.comparison import exact_mcnemar, holm
from components.evaluation.evaluate import Evaluation
from components.evaluation.inference import OnnxModel
from components.evaluation.resampling import accuracy_difference_interval
from components.stores import ObjectNotFoundError
from components.text import clean, p_value, percent, points

MIN_SUPPORT = 30
"""Test examples below which a class says too little to veto a promotion."""

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision and why.

    Attributes:
        decision: `first`, `better`, `tie`, `too-small`, `worse`, `worse-class`, `same-model`, `missing`, `corrupt`,
            `other-classes` or `other-data`.
        reason: One or two sentences.
    """

    decision: str
    reason: str

    @property
    def promotes(self) -> bool:
        """True where the challenger becomes champion."""
        return self.decision in ("first", "better")


def judge(
    records: ChampionRecords,
    champion: Record | None,
    challenger: Evaluation,
    challenger_sha256: str,
    data: TestData,
    min_gain: float,
) -> Judgement:
    """Decide whether a challenger replaces the champion.

    Args:
        records: Where the champion's model is.
        champion: Its record; None before the first promotion.
        challenger: The challenger's evaluation on `data`.
        challenger_sha256: Digest of the challenger's `model.onnx`.
        data: The present test data; both models are scored on it, no stored figure is used.
        min_gain: Accuracy by which the challenger must be better, 0..1.
    """
    if champion is None:
        return Judgement(decision="first", reason="there was no champion")
    stays = f"version {champion.version} stays champion"
    if champion.error:
        return Judgement(
            decision="corrupt", reason=f"{clean(champion.error)}; {stays}. Roll back to an earlier version"
        )
    if champion.sha256 == challenger_sha256:
        return Judgement(decision="same-model", reason=f"challenger and champion are the same file; {stays}")
    classes = list(data.info.classes)
    if sorted(champion.content["classes"]) != sorted(classes):
        return Judgement(decision="other-classes", reason=_class_changes(champion.content["classes"], classes, stays))
    try:
        model = OnnxModel(records.read_model(champion.sha256))
    except ObjectNotFoundError:
        reason = (
            f"the model of version {champion.version} is not in the store; {stays}. Roll back to an earlier version"
        )
        return Judgement(decision="missing", reason=reason)
    except DataError as error:
        return Judgement(decision="corrupt", reason=f"{clean(error)}; {stays}")
    try:
        told = [batch.argmax(axis=1) for batch in model.batches(data.images, len(classes))]
    except DataError as error:
        reason = f"the champion cannot be run on the present test images ({clean(error)}); {stays}"
        return Judgement(decision="other-data", reason=reason)
    order = np.asarray([classes.index(name) for name in champion.content["classes"]])
    predictions = order[np.concatenate(told)]
    found = decide(challenger.predictions, predictions, np.asarray(data.labels), data.groups, classes, min_gain)
    known = champion.content["data_hash"]
    if known and known != data.info.content_hash:
        note = "The champion was trained on other data; both were scored on the present test images."
        return Judgement(decision=found.decision, reason=f"{found.reason} {note}")
    return found


def decide(
    challenger: np.ndarray,
    champion: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    min_gain: float,
) -> Judgement:
    """Decide from the two models' predictions on the same examples.

    Args:
        challenger: (N,) int64, predictions.
        champion: (N,) int64, predictions.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        classes: K names.
        min_gain: Accuracy by which the challenger must be better, 0..1.
    """
    won, held = challenger == labels, champion == labels
    difference = float(won.mean() - held.mean())
    low, high = accuracy_difference_interval(won, held, groups)
    figures = (
        f"on {len(labels):,} test images the challenger is right on {percent(won.mean(), 2)}, the champion on"
        f" {percent(held.mean(), 2)} (difference {100 * difference:+.2f} points, 95 % interval {100 * low:+.2f} to"
        f" {100 * high:+.2f})"
    )
    if high < 0:
        return Judgement(decision="worse", reason=figures)
    if low <= 0:
        return Judgement(decision="tie", reason=f"{figures}: the interval includes zero")
    if difference <= min_gain:
        return Judgement(
            decision="too-small", reason=f"{figures}: not more than promote_min_gain, {points(min_gain, 2)} points"
        )
    losing = losing_classes(won, held, labels, groups)
    if losing:
        names = ", ".join(f"{clean(classes[k], 60)} ({p_value(p)})" for k, p in losing[:5])
        return Judgement(decision="worse-class", reason=f"{figures}, but it is significantly worse on {names}")
    return Judgement(decision="better", reason=figures)


def losing_classes(
    won: np.ndarray, held: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> list[tuple[int, float]]:
    """Return the classes with enough test examples on which the challenger is significantly worse.

    One-sided exact McNemar within each class, a group of identical images counted once, Holm-corrected over the classes.

    Args:
        won: (N,) bool, where the challenger is right.
        held: (N,) bool, where the champion is right.
        labels: (N,) int64.
        groups: (N,) int64.

    Returns:
        (label, corrected p-value), the clearest first.
    """
    tested, p_values = [], []
    for label in np.unique(labels):
        chosen = labels == label
        _, inverse = np.unique(groups[chosen], return_inverse=True)
        if inverse.max() + 1 < MIN_SUPPORT:
            continue
        balance = np.bincount(inverse, won[chosen].astype(np.float64) - held[chosen])
        gained, lost = int((balance > 0).sum()), int((balance < 0).sum())
        tested.append(int(label))
        p_values.append(exact_mcnemar(gained, lost) / 2 if lost > gained else 1.0)
    corrected = zip(tested, holm(p_values) if p_values else [], strict=True)
    return sorted(((k, p) for k, p in corrected if p < SIGNIFICANCE), key=lambda row: row[1])


def _class_changes(before: list[str], now: list[str], stays: str) -> str:
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    parts = [
        f"{len(names)} {what} ({', '.join(clean(n, 40) for n in names[:5])}{', ...' if len(names) > 5 else ''})"
        for names, what in ((new, "classes are new"), (gone, "classes are gone"))
        if names
    ]
    return (
        f"the champion knows other classes than the present data: {'; '.join(parts) or 'some appear twice'}. They cannot be"
        f" compared, so {stays}. Give the changed catalogue a new dataset name, or promote under another study root"
    )
