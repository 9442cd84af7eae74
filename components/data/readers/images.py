"""Decodes image files of any ordinary kind into RGB arrays of one size, refusing what is dangerous before decoding it.

simplejpeg and Pillow both use libjpeg-turbo and give the same pixels; simplejpeg takes a fifth of the time and is used
for ordinary JPEG. Whatever it does not take, Pillow decides.
"""

import io
import math
import threading
import warnings
from contextlib import nullcontext

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from components.text import escaped

Image.init()
FORMATS = tuple({"JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF"} & set(Image.OPEN))
"""Pillow's names of what is read; of several frames the first counts."""

MAX_JPEG_PIXELS = 250_000_000
"""Pixels of a sequential JPEG at most; it is decoded at a reduced scale."""

MAX_PIXELS = 64_000_000
"""Pixels of any other file at most: it takes memory for all of them."""

_FULL_PIXELS = 4_000_000  # up to here at full scale
_LARGE_PIXELS = 16_000_000  # from here one at a time
_MAX_SCANS = 100  # a progressive file may ask for thousands of passes over all its pixels
_ORIENTATION = 0x0112
_NOTES = {"L": "greyscale", "LA": "greyscale", "1": "greyscale", "CMYK": "cmyk", "P": "palette", "PA": "palette"}
_large_lock = threading.Lock()

Image.MAX_IMAGE_PIXELS = None  # the limits above hold instead, before anything is decoded


class UndecodableError(Exception):
    """The bytes are no usable image; the text is the reason."""


def decode(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one image.

    Args:
        data: An image file, whatever its name says.
        size: Height and width of the result, pixels. Other sizes are scaled to fit and padded with white.

    Returns:
        (H, W, 3) uint8 RGB, and what was unusual about the file: `greyscale`, `cmyk`, `palette`, `sixteen_bit`,
        `transparent` (shown on white), `rotated`, `animated` (its first frame), `converted`, `resized`.

    Raises:
        UndecodableError: It is empty, no image, damaged, or too large.
    """
    if not data:
        raise UndecodableError("empty file")
    if data[:3] == b"\xff\xd8\xff":
        if data.count(b"\xff\xda") > _MAX_SCANS:
            raise UndecodableError(f"more than {_MAX_SCANS} scans")
        if (decoded := _decode_ordinary(data, size)) is not None:
            return decoded
    with _quiet:
        return _decode_any(data, size)


def _decode_ordinary(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Return a JPEG of the usual kind; None where Pillow must see it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # damaged, or sampled in a way that simplejpeg does not know and Pillow does
        return None
    if colours not in ("YCbCr", "Gray") or b"Exif\0\0" in data[: 2**16]:
        return None
    _check_pixels(width, height, is_sequential=_is_sequential(data))
    reduced = {}
    if height * width > _FULL_PIXELS:
        reduced["min_width"], reduced["min_height"] = _enough(width, height, size)
    try:
        with _large_lock if height * width > _LARGE_PIXELS else nullcontext():
            image = simplejpeg.decode_jpeg(data, "RGB", **reduced)
    except ValueError:
        return None
    notes = ("greyscale",) if colours == "Gray" else ()
    if (height, width) == size:
        return image, notes
    return _resized(Image.fromarray(image), size), (*notes, "resized")


def _decode_any(data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            is_jpeg = opened.format in ("JPEG", "MPO")
            num_pixels = opened.width * opened.height
            _check_pixels(*opened.size, is_sequential=is_jpeg and _is_sequential(data))
            with _large_lock if num_pixels > _LARGE_PIXELS else nullcontext():
                if not is_jpeg and getattr(opened, "is_animated", False):
                    notes.append("animated")
                if num_pixels > _FULL_PIXELS:
                    opened.draft(None, _enough(*opened.size, (max(size), max(size))))
                opened.load()
                image: Image.Image = opened
                if image.width * image.height > _FULL_PIXELS and image.mode in ("RGB", "RGBA", "L", "LA", "CMYK"):
                    image = image.reduce(_shrink(*image.size, (max(size), max(size))))
                if opened.getexif().get(_ORIENTATION, 1) in range(2, 9):
                    image = ImageOps.exif_transpose(image)
                    notes.append("rotated")
                image = _on_white(image, notes)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        problem = "damaged at its beginning" if data[:3] == b"\xff\xd8\xff" else "no image of a kind that is read"
        raise UndecodableError(f"{problem}; it begins with {escaped(data[:12])}") from None
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise UndecodableError(f"damaged ({error})") from error
    if (image.height, image.width) != size:
        return _resized(image, size), (*notes, "resized")
    return np.asarray(image), tuple(notes)


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return an image as RGB, what is transparent shown on white, 16 bits brought to 8."""
    if image.mode[:1] in ("I", "F"):
        notes.append("sixteen_bit")
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            most = 1.0 if values.max(initial=0) <= 1 else 255.0
        else:
            most = 65535.0 if values.max(initial=0) <= 65535 else 2.0**32 - 1
        return Image.fromarray(np.rint(values.clip(0, most) * (255 / most)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if note := _NOTES.get(image.mode):
            notes.append(note)
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min(initial=255) < 255:
            notes.append("transparent")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "RGB":
        return image
    notes.append(_NOTES.get(image.mode, "converted"))
    return image.convert("RGB")


def _check_pixels(width: int, height: int, *, is_sequential: bool) -> None:
    most = MAX_JPEG_PIXELS if is_sequential else MAX_PIXELS
    if width * height > most:
        raise UndecodableError(f"more than {most:,} pixels ({width} x {height})")


def _is_sequential(data: bytes) -> bool:
    """Return whether a JPEG is decoded row by row; a progressive one needs memory for all its coefficients."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1):
            return True
        if (0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xDA:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if marker != 0xFF else 1
    return False


def _enough(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest width and height that still have twice the pixels a side that the result shows."""
    scale = min(1.0, 2 * min(size[0] / height, size[1] / width))
    return math.ceil(width * scale), math.ceil(height * scale)


def _shrink(width: int, height: int, size: tuple[int, int]) -> int:
    return max(1, math.floor(width / _enough(width, height, size)[0]))


class _Quiet:
    """Keeps Pillow's warnings about odd metadata back while any thread is inside; `catch_warnings` is not for threads."""

    def __init__(self) -> None:
        self._lock, self._num_inside, self._filters = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()


def _resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.asarray(ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, color=(255, 255, 255)))
