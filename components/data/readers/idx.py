"""Reads IDX files, the format of MNIST and its successors, without trusting a byte of them.

Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format").
"""

import gzip
import io
import math
import struct
import zlib

import numpy as np

from components.errors import DataError

MAX_BYTES = 512 * 2**20
"""Unpacked size at most: ten times Fashion-MNIST."""

_UINT8 = 0x08


def gunzip(data: bytes, name: str, *, limit: int = MAX_BYTES) -> bytes:
    """Unpack gzip data of one member, its checksum verified, counting while unpacking.

    Args:
        data: Packed bytes.
        name: File name for messages.
        limit: Unpacked bytes at most.

    Raises:
        DataError: It is cut short, damaged, too large, or followed by other bytes.
    """
    if data[:2] != b"\x1f\x8b":
        raise DataError(
            f"{name} must be gzip data; got a file that begins with {data[:4].hex() or 'nothing'}. Fetch it again"
        )
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise DataError(f"{name} must be undamaged gzip data; got {error}. Fetch it again") from error
    if len(unpacked) > limit:
        raise DataError(f"{name} must unpack to at most {limit:,} bytes; got more. Check that it is the right file")
    if not inflater.eof:
        promised = _promised_bytes(unpacked)
        raise DataError(
            f"{name} must be whole; expected {f'{promised:,}' if promised else 'more'} bytes, got {len(unpacked):,}."
            " It is cut short: fetch it again"
        )
    if inflater.unused_data:
        raise DataError(
            f"{name} must end with its gzip data; got {len(inflater.unused_data):,} trailing bytes. Fetch it again"
        )
    return unpacked


def _promised_bytes(data: bytes) -> int | None:
    """Return the length that the beginning of an IDX file promises, or None where it is no such file."""
    num_dims = data[3] if len(data) > 3 else 0
    if data[:3] != bytes((0, 0, _UINT8)) or not 0 < num_dims < 5 or len(data) < 4 + 4 * num_dims:
        return None
    return 4 + 4 * num_dims + math.prod(struct.unpack_from(f">{num_dims}I", data, 4))


def parse_idx(data: bytes, name: str, *, num_dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Args:
        data: The unpacked file.
        name: File name for messages.
        num_dims: Dimensions it must have: 3 for images, 1 for labels.

    Returns:
        Array uint8 of the shape in the header; a view of `data`.

    Raises:
        DataError: Names the field of the header that is wrong.
    """
    header_bytes = 4 + 4 * num_dims
    if len(data) < header_bytes:
        raise DataError(
            f"{name}: header must have {header_bytes} bytes; expected {header_bytes}, got {len(data)}. Fetch it again"
        )
    if data[:2] != b"\0\0":
        raise DataError(f"{name}: magic must begin with 0000; got {data[:2].hex()}. It is no IDX file")
    if data[2] != _UINT8:
        raise DataError(f"{name}: type must be 08 (unsigned byte); got {data[2]:02x}. Convert it")
    if data[3] != num_dims:
        raise DataError(f"{name}: dimensions must be {num_dims}; got {data[3]}. Check that it is the right file")
    shape = struct.unpack(f">{num_dims}I", data[4:header_bytes])
    if 0 in shape:
        raise DataError(f"{name}: sizes must be positive; got {' x '.join(map(str, shape))}. The file is empty")
    expected = header_bytes + math.prod(shape)
    if len(data) != expected:
        sizes = " x ".join(map(str, shape))
        raise DataError(
            f"{name}: expected {expected:,} bytes for {sizes} values, got {len(data):,}. It is damaged: fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def format_idx(array: np.ndarray) -> bytes:
    """Write an array uint8 in IDX format, gzipped without name and time so that equal arrays give equal bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UINT8, array.ndim, *array.shape)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(header + np.ascontiguousarray(array, np.uint8).tobytes())
    return packed.getvalue()
