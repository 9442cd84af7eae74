"""Decoding: normalised, counted, or refused before it costs anything."""

import io
import resource
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from components.data.readers.images import UndecodableError, decode
from tests.data.builders import jpeg

SIZE = (80, 60)


def with_size(data, width, height):
    """Overwrite the size in a JPEG's frame header."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def with_orientation(data, value):
    """Put an EXIF block with an orientation behind the start marker."""
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHLL", 0x0112, 3, 1, value) + bytes(4)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def test_same_pixels_as_pillow():
    """The fast decoder and Pillow give the same pixels."""
    data = jpeg(seed=1)

    image, notes = decode(data, SIZE)

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    assert ((80, 60, 3), np.uint8, ()) == (image.shape, image.dtype, notes)


def test_progressive():
    """Progressive files are ordinary."""
    data = jpeg(seed=1, progressive=True)

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), decode(data, SIZE)[0])


def test_greyscale():
    """A greyscale file becomes three equal channels and is counted."""
    image, notes = decode(jpeg((90, 90, 90), mode="L"), SIZE)

    assert ("greyscale",) == notes
    assert 0 == np.ptp(image, axis=2).max()


def test_cmyk():
    """A CMYK file becomes RGB and is counted."""
    image, notes = decode(jpeg((200, 30, 30), mode="CMYK"), SIZE)

    assert ("cmyk",) == notes
    np.testing.assert_allclose(image[40, 30], (200, 30, 30), atol=12)


@pytest.mark.parametrize("size", [(53, 80), (60, 60), (1, 1), (600, 800), (80, 60), (2000, 20)])
def test_other_sizes(size):
    """Other sizes are scaled to fit, padded with white, and counted."""
    image, notes = decode(jpeg((10, 10, 10), size), SIZE)

    assert ((80, 60, 3), ("resized",)) == (image.shape, notes)
    assert image[40, 30].max() < 20


def test_rotated():
    """The orientation in EXIF is applied, so a picture on its side stands up."""
    upright = np.zeros((80, 60, 3), np.uint8)
    upright[:20] = 250
    data = io.BytesIO()
    Image.fromarray(np.rot90(upright)).save(data, "JPEG", quality=95)

    image, notes = decode(with_orientation(data.getvalue(), 6), SIZE)

    assert ("rotated",) == notes
    assert image[:15].mean() > 200
    assert image[25:].mean() < 50


def test_plain_exif():
    """EXIF without a rotation changes nothing."""
    data = jpeg(seed=2)

    np.testing.assert_array_equal(decode(data, SIZE)[0], decode(with_orientation(data, 1), SIZE)[0])


def test_damaged_exif():
    """Damaged EXIF is no reason to lose a picture, and no warning either."""
    data = with_orientation(jpeg(seed=2), 6).replace(b"II*\0\x08\0\0\0\x01\0", b"II*\0\xff\0\0\0\xff\xff")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (80, 60, 3) == decode(data, SIZE)[0].shape


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\xff\xd8\xff", "damaged"),
        (b"hello", "begins with hello"),
        (b"<html>404 not found</html>", "begins with <html>404"),
        (jpeg(seed=1, image_format="PNG")[:-300], "damaged"),
        (jpeg(seed=1, image_format="TIFF")[:-300], "damaged"),
        (jpeg(seed=1, image_format="WEBP")[:-100], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image of a kind that is read"),
        (jpeg(seed=1)[:300], "damaged"),
        (jpeg(seed=1)[:-200], "damaged"),
        (jpeg(seed=1)[:2] + jpeg(seed=1)[400:], "damaged|no image"),
        (with_size(jpeg(), 50_000, 50_000), "more than 250,000,000 pixels"),
        (with_size(jpeg(), 65_535, 65_535), "more than 250,000,000 pixels"),
        (with_size(jpeg(), 0, 60), "damaged"),
        (jpeg()[:-2] + b"\xff\xda" * 200, "more than 100 scans"),
    ],
    ids=[
        "empty",
        "start only",
        "text",
        "web page",
        "png",
        "tiff",
        "webp",
        "eps",
        "header only",
        "end missing",
        "tables missing",
        "bomb",
        "largest bomb",
        "no height",
        "scans",
    ],
)
def test_refused(data, reason):
    """Everything that is no whole JPEG of sensible size is refused with its reason."""
    with pytest.raises(UndecodableError, match=reason):
        decode(data, SIZE)


def test_pixel_bomb_costs_nothing():
    """A header that promises 7.5 GB is refused before memory is taken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UndecodableError):
        decode(with_size(jpeg(), 50_000, 50_000), SIZE)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_stored_as_rgb():
    """Files that do without the usual YCbCr are left to Pillow."""
    data = jpeg(seed=3, keep_rgb=True)

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), decode(data, SIZE)[0])


def damaged(kind):
    """Return a JPEG that libjpeg complains about and every viewer shows."""
    data = jpeg(seed=7)
    scan = data.index(b"\xff\xda")
    if kind == "extraneous bytes":
        return data, data[:scan] + b"\0\0\0" + data[scan:]
    end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    return data, data[: end - 3] + b"\0\x3f\x01" + data[end:]


@pytest.mark.parametrize("kind", ["extraneous bytes", "Invalid SOS parameters"])
def test_pillow_is_the_second_opinion(kind):
    """What simplejpeg refuses and Pillow decodes without an error is kept, with the pixels of the whole file."""
    whole, odd = damaged(kind)

    np.testing.assert_array_equal(decode(whole, SIZE)[0], decode(odd, SIZE)[0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0"}), ("PNG", {}), ("WEBP", {})],
)
def test_large_photographs(kind, options):
    """Photographs of 12 million pixels are brought to size by a reduced scale, and look as those of a small one do."""
    small = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 6, 3), np.uint8))
    files = []
    for size in ((600, 800), (3000, 4000)):
        data = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(data, kind, **options)
        files.append(data.getvalue())

    (expected, _), (found, notes) = (decode(data, SIZE) for data in files)

    assert ("resized",) == notes
    assert np.abs(expected.astype(int) - found).mean() < 2


def test_limits_by_kind():
    """A sequential JPEG is decoded row by row and may be larger than a progressive one, which is held as a whole."""
    large = with_size(jpeg(seed=1), 10_000, 10_000)
    progressive = jpeg(seed=1, progressive=True)
    at = progressive.index(b"\xff\xc2")
    progressive = progressive[: at + 5] + struct.pack(">HH", 10_000, 10_000) + progressive[at + 9 :]

    assert (80, 60, 3) == decode(large, SIZE)[0].shape
    with pytest.raises(UndecodableError, match="more than 64,000,000 pixels"):
        decode(progressive, SIZE)
