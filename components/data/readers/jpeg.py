"""Decodes JPEG images of any kind into RGB arrays of one size, refusing what is dangerous before decoding it.

simplejpeg and Pillow both use libjpeg-turbo and give the same pixels; simplejpeg takes a fifth of the time and is used
for everything ordinary.
"""

import io
import threading
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

MAX_PIXELS = 4_000_000
_MAX_SCANS = 100  # a progressive file may ask for thousands of passes over all its pixels
_ORIENTATION = 0x0112
_warnings_lock = threading.Lock()


class UndecodableError(Exception):
    """The bytes are no usable JPEG image; the text is the reason."""


def decode(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one image.

    Args:
        data: A JPEG file.
        size: Height and width of the result, pixels. Other sizes are scaled to fit and padded with white.

    Returns:
        (H, W, 3) uint8 RGB, and what was unusual about the file: `greyscale`, `cmyk`, `rotated`, `resized`.

    Raises:
        UndecodableError: It is empty, no JPEG, damaged, or too large.
    """
    if not data:
        raise UndecodableError("empty file")
    if data[:3] != b"\xff\xd8\xff":
        raise UndecodableError("not a JPEG file")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # damaged, or sampled in a way that simplejpeg does not know and Pillow does
        height = width = 0
        colours = "unknown"
    if height * width > MAX_PIXELS:
        raise UndecodableError(_too_many_pixels(width, height))
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise UndecodableError(f"more than {_MAX_SCANS} scans")
    has_exif = b"Exif\0\0" in data[: 2**16]
    if colours in ("YCbCr", "Gray") and not has_exif:
        try:
            image = simplejpeg.decode_jpeg(data, "RGB")
        except ValueError as error:
            raise UndecodableError(f"damaged ({error})") from error
        notes = ("greyscale",) if colours == "Gray" else ()
        if (height, width) == size:
            return image, notes
        return _resized(Image.fromarray(image), size), (*notes, "resized")
    return _decode_unusual(data, size)


def _decode_unusual(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    notes = []
    # Pillow warns about odd metadata; `catch_warnings` is not safe in threads, hence the lock.
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise UndecodableError(_too_many_pixels(*opened.size))
                opened.load()
                image = opened
                if opened.getexif().get(_ORIENTATION, 1) in range(2, 9):
                    image = ImageOps.exif_transpose(opened)
                    notes.append("rotated")
                if image.mode != "RGB":
                    notes.append({"L": "greyscale", "CMYK": "cmyk"}.get(image.mode, "converted"))
                    image = image.convert("RGB")
        except UndecodableError:
            raise
        except Image.DecompressionBombError:
            raise UndecodableError(f"more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # a decoder may raise anything on hostile bytes
            raise UndecodableError(f"damaged ({error})") from error
    if (image.height, image.width) != size:
        notes.append("resized")
        return _resized(image, size), tuple(notes)
    return np.asarray(image), tuple(notes)


def _too_many_pixels(width: int, height: int) -> str:
    return f"more than {MAX_PIXELS:,} pixels ({width} x {height})"


def _resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.asarray(ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, color=(255, 255, 255)))
