"""Small data that a small model can learn, and a study that has a winner."""

import numpy as np

from components.data.contract import DatasetInfo, TrainData
from components.search.trial import Ledger, Trial


def make_train_data(num: int = 60, shape: tuple[int, int, int] = (12, 10, 1), num_classes: int = 3) -> TrainData:
    """Return noisy images whose class is the height of a bright band; every fifth one is for validation."""
    random = np.random.default_rng(0)
    labels = np.arange(num) % num_classes
    images = random.integers(0, 100, (num, *shape), dtype=np.uint8)
    band = max(1, shape[0] // num_classes)
    for image, label in zip(images, labels, strict=True):
        start = min(label * band, shape[0] - band)
        image[start : start + band] += 120
    info = DatasetInfo(
        name="bands",
        classes=tuple(f"class {k}" for k in range(num_classes)),
        counts={"train": num - num // 5, "validation": num // 5, "test": 0},
        source="generated",
        checksums={},
        content_hash="0" * 64,
    )
    split = (np.arange(num) % 5 == 4).astype(np.uint8)
    return TrainData(images=images, labels=labels.astype(np.int64), split=split, info=info)


def make_ledger(approach: str, hyperparameters: dict, score: float | None = 0.5) -> Ledger:
    """Return a study with one completed trial, or one that diverged where there is no score."""
    status = "diverged" if score is None else "completed"
    trial = Trial(number=0, status=status, hyperparameters=hyperparameters, score=score)
    return Ledger(name=f"test-{approach}", spec={"approach": approach}, trials=(trial,))
