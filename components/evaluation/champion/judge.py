"""The judge compares a challenger with the champion on the same images, which neither was trained or selected on.

Two questions are put to the images, each with a stated chance of an error: is the challenger better (McNemar's exact one-sided
test, its level from `champion.challenges`), and is it on no class worse by more than a margin (`champion.class_losses`)?
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from components.data.contract import TestData
from components.data.digests import digest_images, short_digests
from components.errors import DataError
from components.evaluation.champion.challenges import next_alpha
from components.evaluation.champion.class_losses import ClassLoss, possible_losses
from components.evaluation.champion.records import ChampionRecords, Record
from components.evaluation.comparison import discordant_groups, exact_p_better
from components.evaluation.evaluate import Evaluation
from components.evaluation.inference import OnnxModel
from components.evaluation.resampling import accuracy_difference_interval
from components.stores import ObjectNotFoundError
from components.text import clean, percent, points

MIN_UNSEEN = 30
"""Distinct test images that neither model was trained or selected on, below which nothing is judged
(a whole test set that is smaller may be)."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision and its reason.

    Attributes:
        decision: `first`, `better`, `tie`, `too-small`, `not-proven`, `worse`, `worse-class`, `same-model`, `missing`, `corrupt`,
            `other-classes`, `other-data`, `training-unknown` or `too-few-unseen`.
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
        data: The present test data; both models are scored on it, no stored score is used.
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
        batches = [batch.argmax(axis=1) for batch in model.batches(data.images, len(classes))]
    except DataError as error:
        reason = f"the champion cannot be run on the present test images ({clean(error)}); {stays}"
        return Judgement(decision="other-data", reason=reason)
    try:
        images = short_digests(digest_images(data.images))
        unseen = _unseen(records.read_seen(champion.sha256), champion, challenger, data, images)
    except DataError as error:
        return Judgement(decision="corrupt", reason=f"{clean(error)}; {stays}")
    if unseen is None:
        reason = (
            "it is not recorded which images both models were trained on, so that no test image is known to be new to them;"
            f" {stays}. Promote under another study root to start anew"
        )
        return Judgement(decision="training-unknown", reason=reason)
    num_unseen, num_all = (len(np.unique(data.groups[chosen])) for chosen in (unseen, slice(None)))
    if num_unseen < min(MIN_UNSEEN, num_all):
        reason = (
            f"{num_unseen:,} of {num_all:,} test images are new to both models, {MIN_UNSEEN} must be;"
            f" {stays}. Bring more data, or keep data_test_fraction as it was"
        )
        return Judgement(decision="too-few-unseen", reason=reason)
    order = np.asarray([classes.index(name) for name in champion.content["classes"]])
    predictions, labels = order[np.concatenate(batches)][unseen], np.asarray(data.labels)[unseen]
    challenge = records.challenges.open(
        (
            champion.sha256.encode(),
            challenger_sha256.encode(),
            images[unseen].tobytes(),
            labels.astype("<i8").tobytes(),
        ),
        {
            "champion": champion.sha256,
            "challenger": challenger_sha256,
            "version": champion.version,
            "images": len(labels),
        },
        datetime.now(UTC),
    )
    judgement = decide(
        challenger.predictions[unseen], predictions, labels, data.groups[unseen], classes, min_gain, challenge["alpha"]
    )
    notes = []
    if left := int((~unseen).sum()):
        notes.append(f"{left:,} test images that one of them was trained or selected on were left out.")
    trained_on = champion.content["data_hash"]
    if trained_on and trained_on != data.info.content_hash:
        notes.append("The champion was trained on other data.")
    reason = " ".join([f"{judgement.reason}.", *notes]) if notes else judgement.reason
    return Judgement(decision=judgement.decision, reason=reason)


def _unseen(
    seen: np.ndarray | None, champion: Record, challenger: Evaluation, data: TestData, images: np.ndarray
) -> np.ndarray | None:
    """Return (N,) bool, the test images that neither model was trained or selected on; None if that is not recorded.

    Ingest keeps training and test apart, so that a model of the present data has seen none of the present test images, whatever
    else is recorded.
    """
    present = data.info.content_hash
    if challenger.record["model"].get("data_hash") != present:
        return None
    if champion.content["data_hash"] == present:
        return np.ones(len(data.labels), bool)
    return None if seen is None else ~np.isin(images, seen)


def decide(
    challenger: np.ndarray,
    champion: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    min_gain: float,
    alpha: float = next_alpha(0),
) -> Judgement:
    """Decide from the two models' predictions on the same examples.

    Args:
        challenger: (N,) int64, predictions.
        champion: (N,) int64, predictions.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        classes: K names.
        min_gain: Accuracy by which the challenger must be better, 0..1.
        alpha: p-value that counts as proof, by default that of a year's first challenge.
    """
    won, held = challenger == labels, champion == labels
    difference = float(won.mean() - held.mean())
    low, high = accuracy_difference_interval(won, held, groups)
    result = (
        f"on {len(labels):,} test images the challenger is right on {percent(won.mean(), 2)}, the champion on"
        f" {percent(held.mean(), 2)} (difference {100 * difference:+.2f} points, 95 % interval {100 * low:+.2f} to"
        f" {100 * high:+.2f})"
    )
    if high < 0:
        return Judgement(decision="worse", reason=result)
    if low <= 0:
        return Judgement(decision="tie", reason=f"{result}: the interval includes zero")
    if difference <= min_gain:
        return Judgement(
            decision="too-small", reason=f"{result}: not more than promote_min_gain, {points(min_gain, 2)} points"
        )
    p = float(exact_p_better(*discordant_groups(won, held, groups)))
    evidence = f"exact p = {p:.2g}, where up to {alpha:.2g} is proof for one of a year's challenges"
    if p > alpha:
        return Judgement(decision="not-proven", reason=f"{result}, but {evidence}")
    if losses := possible_losses(won, held, labels, groups):
        named = "; ".join(_loss(loss, classes) for loss in losses[:5])
        return Judgement(decision="worse-class", reason=f"{result}, but the images do not rule out a loss {named}")
    return Judgement(decision="better", reason=f"{result}; {evidence}")


def _loss(loss: ClassLoss, classes: list[str]) -> str:
    names = [clean(classes[k], 60) for k in loss.labels]
    several = f"the {len(names)} smallest classes together ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
    return (
        f"of {points(loss.margin)} points on {names[0] if len(names) == 1 else several}: of {loss.num_images:,} images"
        f" {loss.lost:,} were lost and {loss.gained:,} won"
    )


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
