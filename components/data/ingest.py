"""Turns one source into `train_data`, `test_data` and a report of everything that was wrong with it."""

import logging
import time
from pathlib import Path

import numpy as np

from components.data import fashion_mnist, fashion_products
from components.data.cleaning import fold_rare, settle_contradictions
from components.data.contract import TRAIN, VALIDATION, DatasetInfo, TestData, TrainData
from components.data.dataset_name import FASHION_MNIST, FASHION_PRODUCTS, parse_dataset
from components.data.digests import digest_all
from components.data.duplicates import group_identical
from components.data.ingest_report import write_report
from components.data.raw import RawDataset
from components.data.sources import Opened, open_source
from components.data.splits import LEFT_OUT, TEST, split
from components.errors import DataError
from components.parameters import DataSettings

log = logging.getLogger(__name__)

READERS = {FASHION_MNIST: fashion_mnist, FASHION_PRODUCTS: fashion_products}


def ingest(
    dataset: str,
    *,
    settings: DataSettings,
    train_dir: Path,
    test_dir: Path,
    report_dir: Path,
    cache: str = "",
    history: str = "",
) -> DatasetInfo:
    """Ingest one dataset; the same source and settings give byte-identical directories on any machine.

    Args:
        dataset: `NAME` or `NAME=SOURCE`.
        settings: Fractions, rare classes, limit and seed.
        train_dir: Receives `TrainData`.
        test_dir: Receives `TestData`.
        report_dir: Receives `ingest_report.json` and `ingest_report.md`.
        cache: Directory or store URI for verified raw files; empty means the user's cache directory.
        history: Store URI that keeps each ingest's statistics for comparison; empty keeps none.

    Returns:
        What `train_dir/dataset.json` says.

    Raises:
        ParameterError: The name or the source is wrong.
        DataError: The source is damaged or unusable.
        UnavailableError: A remote source does not answer.
        ConfigurationError: A secret is missing.
        PermissionDeniedError: The source may not be read.
        StorageError: Disk full, or a file unreadable.
    """
    started = time.monotonic()
    name, source = parse_dataset(dataset)
    reader = READERS[name]
    opened = open_source(name, source or reader.DEFAULT_SOURCE, pattern=reader.PATTERN, limits=reader.LIMITS)
    with opened.members as members:
        raw = reader.read(members, limit=settings.limit)
    info = _save(name, opened, raw, settings, train_dir, test_dir, report_dir)
    seconds = time.monotonic() - started
    log.info(
        "ingest %s: %s images in %.1f s (%.0f/s)", name, f"{len(raw.labels):,}", seconds, len(raw.labels) / seconds
    )
    return info


def _save(
    name: str,
    opened: Opened,
    raw: RawDataset,
    settings: DataSettings,
    train_dir: Path,
    test_dir: Path,
    report_dir: Path,
) -> DatasetInfo:
    groups = group_identical(raw.digests)
    labels, held_back, contradictory = settle_contradictions(raw.labels, groups)
    labels, classes, folded = fold_rare(labels, raw.classes, settings.min_class_count)
    if len(classes) < 2:
        raise DataError(
            f"{name} must have at least 2 classes; got {len(classes)}: {', '.join(classes)}. Check the labels"
        )
    splits = split(
        labels,
        groups,
        held_back=held_back,
        official_test=raw.official_test,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )
    assignment = splits.assignment
    counts = {
        "train": int((assignment == TRAIN).sum()),
        "validation": int((assignment == VALIDATION).sum()),
        "test": int((assignment == TEST).sum()),
    }
    for part, number in counts.items():
        if not number:
            raise DataError(
                f"{name} must have examples in every split; got none for {part}. Bring more data or raise the fraction"
            )
    in_train, in_test = np.flatnonzero(assignment <= VALIDATION), np.flatnonzero(assignment == TEST)
    findings = raw.findings
    report = {
        "images": len(raw.labels),
        "quarantined": len(findings.quarantined),
        "repaired": len(findings.repaired),
        "rows_without_image": len(findings.rows_without_image),
        "images_without_row": len(findings.images_without_row),
        "normalised": sum(findings.normalised.values()),
        "duplicate_groups": int((groups.sizes > 1).sum()),
        "duplicate_images": int(groups.sizes[groups.sizes > 1].sum()),
        "contradictory_groups": len(contradictory),
        "left_out": int((assignment == LEFT_OUT).sum()),
        "folded_classes": len(folded),
        "train_only_classes": len(splits.train_only),
    }
    info = DatasetInfo(
        name=name,
        classes=classes,
        counts=counts,
        source=opened.shown,
        checksums=raw.checksums or opened.checksums,
        content_hash=digest_all(
            (
                repr(raw.images.shape[1:]).encode(),
                "\0".join(classes).encode(),
                raw.digests.tobytes(),
                labels.astype("<i8").tobytes(),
                assignment.tobytes(),
            )
        ),
        report=report,
    )
    TrainData(images=raw.images, labels=labels[in_train], split=assignment[in_train], info=info).save(
        train_dir, rows=raw.rows[in_train]
    )
    TestData(images=raw.images, labels=labels[in_test], groups=groups.numbers[in_test], info=info).save(
        test_dir, rows=raw.rows[in_test]
    )
    details = {
        "labels": {
            c: [int(((labels == k) & (assignment == s)).sum()) for s in (TRAIN, VALIDATION, TEST)]
            for k, c in enumerate(classes)
        },
        "folded_classes": folded,
        "train_only_classes": [classes[k] for k in splits.train_only],
        "contradictory_groups": [
            [{"id": str(raw.ids[i]), "label": raw.classes[raw.labels[i]]} for i in group] for group in contradictory
        ],
    }
    write_report(report_dir, info, findings, details)
    return info
