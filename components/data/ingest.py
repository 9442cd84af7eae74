"""Turns one source into `train_data`, `test_data` and a report of everything that was wrong with it."""

import dataclasses
import json
import logging
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from components.data.cleaning import fold_rare, settle_contradictions
from components.data.contract import TRAIN, VALIDATION, DatasetInfo, TestData, TrainData
from components.data.digests import digest_all, short_digests
from components.data.drift import compare_with_previous, take_statistics
from components.data.duplicates import Groups, find_near, group_identical
from components.data.examples import RawDataset
from components.data.readers import catalogue, fashion_mnist, fashion_products
from components.data.report import write_report
from components.data.sources.source import open_source
from components.data.splits import LEFT_OUT, TEST, Splits, split
from components.dataset_name import FASHION_MNIST, FASHION_PRODUCTS, parse_dataset
from components.errors import DataError, using
from components.parameters import DataSettings

log = logging.getLogger(__name__)

_PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

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
    reader = READERS.get(name, catalogue)
    with open_source(name, source, reader, cache) as opened:
        raw = reader.read(opened.members, scratch=train_dir, limit=settings.limit)
        checksums = raw.checksums or opened.checksums
    raw.findings.tell_left_out()
    with closing(raw):
        info = _written(name, raw, settings, opened.label, checksums, history, train_dir, test_dir, report_dir)
    seconds = time.monotonic() - started
    log.info("%s: %s images in %.1f s, %.0f a second", name, f"{len(raw.labels):,}", seconds, len(raw.labels) / seconds)
    return info


def _written(
    name: str,
    raw: RawDataset,
    settings: DataSettings,
    source: str,
    checksums: dict[str, str],
    history: str,
    train_dir: Path,
    test_dir: Path,
    report_dir: Path,
) -> DatasetInfo:
    cleaned = _clean(name, raw, settings)
    details = _describe(raw, cleaned)
    data_hash = digest_all(
        (
            *_content(raw),
            cleaned.labels.astype("<i8").tobytes(),
            "\0".join(cleaned.classes).encode(),
            *_attribute_content(raw, cleaned),
        )
    )
    statistics = take_statistics(raw.images, raw.rows, cleaned.labels, cleaned.classes)
    details["statistics"] = statistics
    details["drift"] = compare_with_previous(statistics, name=name, data_hash=data_hash, history=history)
    for warning in (details["drift"] or {}).get("warnings", ()):
        log.warning("%s changed since the ingest before: %s", name, warning)
    info = DatasetInfo(
        name=name,
        classes=cleaned.classes,
        counts=cleaned.counts,
        source=source,
        checksums=checksums,
        content_hash=digest_all((data_hash.encode(), cleaned.splits.assignment.tobytes())),
        attributes=raw.attribute_values,
        report=_summarise(raw, cleaned, details),
    )
    with using(train_dir):
        _save(raw, cleaned, info, train_dir, test_dir)
        write_report(report_dir, info, raw.findings, details)
    return info


@dataclass(frozen=True)
class _Cleaned:
    """Labels and splits after cleaning.

    Attributes:
        labels: (N,) int64, numbers of `classes`.
        classes: Names in label order.
        groups: Identical images.
        contradictory: Members of each group with more than one label.
        folded: Rare classes that became `other`, with their counts.
        splits: Where each example goes.
        counts: Examples per split.
        attributes: (N, A) int64 of those whose label is as it was read; -1 elsewhere. None where the source has none.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    groups: Groups
    contradictory: list[np.ndarray]
    folded: dict[str, int]
    splits: Splits
    counts: dict[str, int]
    attributes: np.ndarray | None


def _clean(name: str, raw: RawDataset, settings: DataSettings) -> _Cleaned:
    groups = group_identical(raw.digests)
    settled, held_back, contradictory = settle_contradictions(raw.labels, groups, raw.official_test)
    attributes = None if raw.attributes is None else np.where((settled == raw.labels)[:, None], raw.attributes, -1)
    labels, classes, folded = fold_rare(settled, raw.classes, settings.min_class_count)
    if len(classes) < 2:
        raise DataError(f"{name} must have at least 2 classes; got {len(classes)}. Check the labels")
    splits = split(
        labels,
        groups,
        held_back=held_back,
        official_test=raw.official_test,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )
    counts = {part: int((splits.assignment == number).sum()) for part, number in _PARTS.items()}
    for part, number in counts.items():
        if not number:
            raise DataError(
                f"{name} must have examples for every split; got none for {part}. Bring more data, or raise data_limit"
            )
    return _Cleaned(labels, classes, groups, contradictory, folded, splits, counts, attributes)


def _save(raw: RawDataset, cleaned: _Cleaned, info: DatasetInfo, train_dir: Path, test_dir: Path) -> None:
    (train_dir / "dataset.json").unlink(missing_ok=True)  # from here on the two folders do not fit together
    assignment = cleaned.splits.assignment
    in_train, in_test = np.flatnonzero(assignment <= VALIDATION), np.flatnonzero(assignment == TEST)
    groups = cleaned.groups.numbers[in_test]
    seen = np.unique(short_digests(raw.digests[in_train]))
    images = cast(np.ndarray, raw.images)  # whichever it is, it is only saved
    test = TestData(images=images, labels=cleaned.labels[in_test], groups=groups, info=info, seen=seen)
    test.save(test_dir, rows=raw.rows[in_test])
    train = TrainData(
        images=images,
        labels=cleaned.labels[in_train],
        split=assignment[in_train],
        info=info,
        attributes=None if cleaned.attributes is None else cleaned.attributes[in_train],
    )
    # Last, because packed images turn into those of the training where they lie.
    train.save(train_dir, rows=raw.rows[in_train])


def _content(raw: RawDataset) -> tuple[bytes, bytes]:
    return repr(raw.images.shape[1:]).encode(), np.ascontiguousarray(raw.digests).tobytes()


def _attribute_content(raw: RawDataset, cleaned: _Cleaned) -> tuple[bytes, ...]:
    if cleaned.attributes is None:
        return ()
    return json.dumps(raw.attribute_values).encode(), cleaned.attributes.astype("<i8").tobytes()


def _describe(raw: RawDataset, cleaned: _Cleaned) -> dict[str, Any]:
    """Return the sections of the report that are about examples rather than about the source."""
    labels, assignment = cleaned.labels, cleaned.splits.assignment
    table = np.zeros((len(cleaned.classes), LEFT_OUT + 1), np.int64)
    np.add.at(table, (labels, assignment), 1)
    held_out = (assignment == VALIDATION) | (assignment == TEST)
    near = find_near(raw.images, raw.rows[assignment == TRAIN], raw.rows[held_out])
    shared = np.flatnonzero(cleaned.groups.sizes > 1)
    order = np.argsort(cleaned.groups.numbers, kind="stable")
    starts = np.cumsum(cleaned.groups.sizes) - cleaned.groups.sizes
    return {
        "class_counts": {
            name: {part: int(table[k, number]) for part, number in _PARTS.items()}
            for k, name in enumerate(cleaned.classes)
        },
        "train_only_classes": [cleaned.classes[k] for k in cleaned.splits.train_only],
        "folded_classes": cleaned.folded,
        "duplicate_groups": [
            [str(raw.ids[i]) for i in order[starts[g] : starts[g] + cleaned.groups.sizes[g]]] for g in shared
        ],
        "contradictory_groups": [
            [{"id": str(raw.ids[i]), "label": raw.classes[raw.labels[i]]} for i in group]
            for group in cleaned.contradictory
        ],
        "left_out": [str(i) for i in raw.ids[assignment == LEFT_OUT]],
        "near_duplicates": dataclasses.asdict(near),
    }


def _summarise(raw: RawDataset, cleaned: _Cleaned, details: dict[str, Any]) -> dict[str, int]:
    findings, sizes = raw.findings, cleaned.groups.sizes
    return {
        "images": len(raw.labels),
        "quarantined": len(findings.quarantined),
        "repaired": len(findings.repaired),
        "rows_without_image": len(findings.rows_without_image),
        "images_without_row": len(findings.images_without_row),
        "normalised": sum(findings.normalised.values()),
        "duplicate_groups": int((sizes > 1).sum()),
        "duplicate_images": int(sizes[sizes > 1].sum()),
        "contradictory_groups": len(cleaned.contradictory),
        "near_duplicates": details["near_duplicates"]["found"],
        "left_out": len(details["left_out"]),
        "folded_classes": len(cleaned.folded),
        "train_only_classes": len(cleaned.splits.train_only),
    }
