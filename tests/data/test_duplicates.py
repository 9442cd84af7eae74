"""Identical and nearly identical images, and what becomes of their labels."""

import dataclasses
import io

import numpy as np
from PIL import Image

from components.data import duplicates
from components.data.cleaning import fold_rare, settle_contradictions
from components.data.digests import digest_images
from components.data.duplicates import find_near, group_identical, thumbnails


def groups_of(*numbers):
    """Return groups as if examples with the same number were identical."""
    return group_identical(digest_images(np.array(numbers, np.uint8)[:, None, None, None]))


def test_groups_are_numbered_by_first_example():
    """Identical images share a number, in order of appearance."""
    groups = groups_of(9, 3, 9, 1, 3, 9)

    assert [0, 1, 0, 2, 1, 0] == groups.numbers.tolist()
    assert [3, 2, 1] == groups.sizes.tolist()


def test_majority_settles_a_contradiction():
    """A strict majority's label goes to the whole group, which is held back from validation and test."""
    labels = np.array([0, 1, 0, 2, 2])

    settled, held_back, contradictory = settle_contradictions(labels, groups_of(9, 9, 9, 1, 1))

    assert [0, 0, 0, 2, 2] == settled.tolist()
    assert [True, True, True, False, False] == held_back.tolist()
    assert [[0, 1, 2]] == [sorted(group.tolist()) for group in contradictory]


def test_tie_stays():
    """A tie keeps its labels: neither is better."""
    settled, held_back, contradictory = settle_contradictions(np.array([0, 1, 1]), groups_of(9, 9, 1))

    assert ([0, 1, 1], [True, True, False], 1) == (settled.tolist(), held_back.tolist(), len(contradictory))


def test_official_labels_stay():
    """The publisher's test labels are never changed."""
    labels, official = np.array([0, 0, 1]), np.array([False, False, True])

    settled, _, _ = settle_contradictions(labels, groups_of(9, 9, 9), official)

    assert [0, 0, 1] == settled.tolist()


def test_rare_classes_are_folded():
    """Classes below the minimum become one class at the end, and are listed."""
    labels = np.array([0, 0, 0, 1, 2, 2, 3])

    folded, classes, listed = fold_rare(labels, ("a", "b", "c", "d"), 2)

    assert (("a", "c", "other"), {"b": 1, "d": 1}) == (classes, listed)
    assert [0, 0, 0, 2, 1, 1, 2] == folded.tolist()


def test_minimum_of_one_keeps_everything():
    """By default every class that has examples stays, empty ones go."""
    folded, classes, listed = fold_rare(np.array([0, 2, 2]), ("a", "b", "c"), 1)

    assert (("a", "c"), {}, [0, 1, 1]) == (classes, listed, folded.tolist())


def test_class_that_is_called_other():
    """An own class of that name takes the rare ones in."""
    folded, classes, _ = fold_rare(np.array([0, 0, 1, 2]), ("a", "b", "other"), 2)

    assert (("a", "other"), [0, 0, 1, 1]) == (classes, folded.tolist())


def shapes(rng, number):
    """Return different pictures of blocks, (N, 80, 60, 3) uint8."""
    blocks = rng.integers(0, 256, (number, 16, 12, 3), dtype=np.uint8)
    return blocks.repeat(5, axis=1).repeat(5, axis=2)


def test_near_duplicates_in_training_are_counted():
    """The same picture with noise, saved as JPEG at another quality, or scaled is found; another one and a darker one are not."""
    rng = np.random.default_rng(0)
    pictures = np.asarray(
        [Image.fromarray(p).resize((60, 80), Image.Resampling.BILINEAR) for p in shapes(rng, 40)[:, ::10, ::10]]
    )
    near = []
    for number, picture in enumerate(pictures[:30]):
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "JPEG", quality=60)
        scaled = Image.fromarray(picture).resize((120, 160)).resize((60, 80))
        noisy = np.clip(picture.astype(int) + rng.integers(-3, 4, picture.shape), 0, 255).astype(np.uint8)
        near.append([noisy, np.asarray(Image.open(data)), np.asarray(scaled)][number % 3])
    darker = (pictures[30:] * 0.8).astype(np.uint8)
    images = np.concatenate([pictures, np.stack(near), darker, shapes(rng, 20)])

    found = find_near(images, np.arange(40), np.arange(40, 100))

    assert (60, 30) == (found.looked_at, found.found)


def test_near_duplicates_equal_those_of_all_pairs(monkeypatch):
    """Chunks and whole numbers change nothing: the count is that of comparing thumbnails one by one."""
    monkeypatch.setattr(duplicates, "_CHUNK", 7)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 7, (120, 20, 20, 1), dtype=np.uint8)
    small = thumbnails(images)

    found = find_near(images, np.arange(80), np.arange(80, 120))

    distances = ((small[80:, None] - small[None, :80]) ** 2).mean(axis=2)
    assert int((distances.min(axis=1) <= 4).sum()) == found.found
    assert 0 < found.found < 40


def test_a_large_test_set_is_sampled(monkeypatch):
    """No more held-out images are looked at than the share needs, spread over all of them."""
    monkeypatch.setattr(duplicates, "MAX_LOOKED_AT", 10)
    images = np.zeros((100, 9, 9, 1), np.uint8)

    assert (10, 10) == dataclasses.astuple(find_near(images, np.arange(50), np.arange(50, 100)))


def test_thumbnails_are_means():
    """A cell is the mean of its pixels, rounded; images smaller than the grid keep their size."""
    images = np.random.default_rng(0).integers(0, 256, (2, 80, 60, 3), dtype=np.uint8)

    expected = images.reshape(2, 16, 5, 12, 5, 3).mean(axis=(2, 4, 5)).reshape(2, -1)
    np.testing.assert_allclose(expected, thumbnails(images), atol=0.51)
    for size, cells in (((9, 9), 81), ((28, 28), 192), ((8, 300), 96), ((512, 512), 192)):
        assert (3, cells) == thumbnails(np.full((3, *size, 1), 200, np.uint8)).shape
        assert {200.0} == set(thumbnails(np.full((3, *size, 1), 200, np.uint8)).ravel().tolist())
