"""Fashion-MNIST consists of four IDX files and has a fixed test set.

Source: Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747; https://github.com/zalandoresearch/fashion-mnist
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from components.data.digests import digest_images, short_digests
from components.data.examples import Members, RawDataset
from components.data.findings import Findings
from components.data.readers.idx import MAX_BYTES, gunzip, parse_idx
from components.data.readers.members import Limits
from components.data.readers.subset import stratified_subset
from components.errors import DataError

DEFAULT_SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
KAGGLE_DATASET = "zalando-research/fashionmnist"

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
PUBLISHED_MD5 = {
    TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
    TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
    TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
}
PUBLISHED_BYTES = {TRAIN_IMAGES: 26_421_880, TRAIN_LABELS: 29_515, TEST_IMAGES: 4_422_102, TEST_LABELS: 5_148}
FILES = tuple(PUBLISHED_MD5)

PATTERN = r"(?:[\w.-]+/){0,3}(?:train|t10k)-(?:images-idx3|labels-idx1)-ubyte(?:\.gz)?"
"""Names of the four files, plain or gzipped, in any folder; Kaggle's archive holds them plain."""
LIMITS = Limits(member_bytes=MAX_BYTES)


def is_published(name: str, data: bytes) -> bool:
    """Return whether a gzipped file is the publisher's own, byte for byte.

    Raises:
        DataError: It has the published file's size but not its digest.
    """
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if digest == PUBLISHED_MD5[name]:
        return True
    if len(data) == PUBLISHED_BYTES[name]:
        raise DataError(f"{name} must have MD5 {PUBLISHED_MD5[name]}; got {digest}. It is damaged: fetch it again")
    return False


def read(members: Members, *, scratch: Path, limit: int = 0) -> RawDataset:  # noqa: ARG001 - as every reader
    """Read and check the four files.

    Args:
        members: Holds the four files (`PATTERN`), plain or gzipped.
        scratch: Not used; its images fit into memory.
        limit: Examples to keep at most, stratified by split and class; 0 keeps all.

    Returns:
        Images (N, H, W, 1), training examples first, in the publisher's order.

    Raises:
        DataError: A file is missing, damaged, or does not fit the others.
    """
    findings, checksums = Findings(), {}
    places = {
        re.sub(r"\.gz$", "", name.rpartition("/")[2]) + ".gz": name
        for name in members.names
        if re.fullmatch(PATTERN, name)
    }
    missing = [name for name in FILES if name not in places]
    if missing:
        raise DataError(f"Fashion-MNIST must have {', '.join(FILES)}; {', '.join(missing)} missing. Check the source")
    parts = {}
    published = True
    for name in FILES:
        data = members.read(places[name])
        checksums[name] = "sha256:" + hashlib.sha256(data).hexdigest()
        if places[name].endswith(".gz"):
            published &= is_published(name, data)
            data = gunzip(data, name)
        else:
            published = False
        parts[name] = parse_idx(data, name, num_dims=3 if "images" in name else 1)
    _check_fit(parts)
    if not published:
        findings.notes["published"] = False
    images = np.concatenate([parts[TRAIN_IMAGES], parts[TEST_IMAGES]])[..., None]
    labels = np.concatenate([parts[TRAIN_LABELS], parts[TEST_LABELS]]).astype(np.int64)
    num_train = len(parts[TRAIN_LABELS])
    names = np.array([f"train/{i}" for i in range(num_train)] + [f"t10k/{i}" for i in range(len(labels) - num_train)])
    rows, digests = np.arange(len(labels)), digest_images(images)
    if limit:  # whatever the limit, no training image is one of the whole official test set
        keys = short_digests(digests)
        rows = np.flatnonzero((rows >= num_train) | ~np.isin(keys, keys[num_train:]))
        strata = [f"{i >= num_train} {labels[i]}" for i in rows]
        rows = rows[stratified_subset(strata, names[rows].tolist(), limit)]
    return RawDataset(
        images=images,
        rows=rows,
        labels=labels[rows],
        classes=CLASSES,
        ids=names[rows],
        digests=digests[rows],
        official_test=rows >= num_train,
        checksums=checksums,
        findings=findings,
    )


def _check_fit(parts: dict[str, np.ndarray]) -> None:
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        num_images, num_labels = len(parts[images]), len(parts[labels])
        if num_images != num_labels:
            raise DataError(
                f"{labels}: count must be {num_images:,} as in {images}; got {num_labels:,}. Check the source"
            )
        if (largest := int(parts[labels].max())) >= len(CLASSES):
            raise DataError(f"{labels}: labels must be 0 to {len(CLASSES) - 1}; got {largest}. Check the source")
    train_size, test_size = parts[TRAIN_IMAGES].shape[1:], parts[TEST_IMAGES].shape[1:]
    if train_size != test_size:
        raise DataError(
            f"{TEST_IMAGES}: size must be {train_size} as in {TRAIN_IMAGES}; got {test_size}. Check the source"
        )
