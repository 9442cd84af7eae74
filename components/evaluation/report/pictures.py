"""This module chooses test images for the report and turns each into a small data URI."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import confident_mistakes
from components.text import approach_name, short_names

MAX_SIDE = 96
NAME_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One test image and what the approaches made of it.

    Attributes:
        uri: `data:image/...`.
        width: In CSS pixels.
        height: In CSS pixels.
        truth: Name of the true class.
        answers: (approach, class name, confidence 0..1, whether right), by approach.
        alt: For readers who cannot see it.
    """

    uri: str
    width: int
    height: int
    truth: str
    answers: tuple[tuple[str, str, float, bool], ...]
    alt: str


def disagreements(right: Evaluation, wrong: Evaluation, images: np.ndarray, limit: int = 12) -> list[Picture]:
    """Return images that only the first gets right, those with the widest gap of belief in the truth first.

    Args:
        right: The approach that is right.
        wrong: The approach that is wrong.
        images: (N, H, W, C) uint8.
        limit: Most pictures; one per group of identical images.
    """
    chosen = np.flatnonzero(right.correct & ~wrong.correct)
    gap = right.answers.truth[chosen] - wrong.answers.truth[chosen]
    ordered = chosen[np.lexsort((chosen, -gap))]
    _, first = np.unique(right.groups[ordered], return_index=True)
    return [picture(i, images, (right, wrong)) for i in ordered[np.sort(first)][:limit]]


def mistakes(evaluation: Evaluation, others: list[Evaluation], images: np.ndarray, limit: int = 12) -> list[Picture]:
    """Return the images one approach gets wrong with most confidence.

    Args:
        evaluation: The approach.
        others: Approaches whose answers are shown beside.
        images: (N, H, W, C) uint8.
        limit: Most pictures.
    """
    rows = confident_mistakes(evaluation.answers, evaluation.labels, evaluation.groups, limit)
    return [picture(row["index"], images, (evaluation, *others)) for row in rows]


def picture(index: int, images: np.ndarray, evaluations: tuple[Evaluation, ...]) -> Picture:
    """Return one test image with every approach's answer."""
    label = int(evaluations[0].labels[index])
    answers = []
    for e in sorted(evaluations, key=lambda e: e.approach):
        prediction = int(e.predictions[index])
        answer = (
            e.approach,
            short_names(e.classes, NAME_LENGTH)[prediction],
            float(e.answers.confidence[index]),
            prediction == label,
        )
        answers.append(answer)
    truth = short_names(evaluations[0].classes, NAME_LENGTH)[label]
    said = ", ".join(f"{approach_name(a)} says {name} ({100 * c:.0f} %)" for a, name, c, _ in answers)
    uri, width, height = data_uri(np.asarray(images[index]))
    return Picture(
        uri=uri,
        width=width,
        height=height,
        truth=truth,
        answers=tuple(answers),
        alt=f"Test image {index}, {truth}: {said}",
    )


def data_uri(image: np.ndarray) -> tuple[str, int, int]:
    """Return an image as a data URI with the size to show it at.

    Args:
        image: (H, W, C) uint8; C is 1 or 3.
    """
    made = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3])
    if max(made.size) > MAX_SIDE:
        made.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    small = max(made.size) <= 32
    # Line art of few pixels stays sharp as PNG; photographs are a fifth of the size as JPEG.
    made.save(buffer, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 82}))
    kind = "png" if small else "jpeg"
    scale = max(1, 84 // max(made.size)) if small else 1
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return uri, made.width * scale, made.height * scale
