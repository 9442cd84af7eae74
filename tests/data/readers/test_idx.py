"""IDX files: every field of the header is checked, and every length."""

import gzip
import zlib

import numpy as np
import pytest

from components.data.readers.idx import format_idx, gunzip, parse_idx
from components.errors import DataError
from tests.data.builders import idx


def test_reads_what_it_writes():
    """Writing and reading give the same array, and equal arrays give equal bytes."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)

    data = format_idx(array)

    np.testing.assert_array_equal(array, parse_idx(gunzip(data, "x"), "x", num_dims=3))
    assert data == format_idx(array.copy())


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "header must have 16 bytes"),
        (idx()[:15], "header must have 16 bytes"),
        (idx(magic=b"\1\0\x08\x03"), "magic"),
        (idx(magic=b"\0\1\x08\x03"), "magic"),
        (idx(magic=b"\0\0\x09\x03"), "type must be 08"),
        (idx(magic=b"\0\0\x0d\x03"), "type must be 08"),
        (idx(magic=b"\0\0\x08\x01"), "dimensions must be 3"),
        (idx(magic=b"\0\0\x08\x04"), "dimensions must be 3"),
        (idx(magic=b"\0\0\x08\xff"), "dimensions must be 3"),
        (idx(dims=(0, 3, 3), body=b""), "sizes must be positive"),
        (idx(dims=(2, 0, 3), body=b""), "sizes must be positive"),
        (idx(dims=(3, 3, 3), body=bytes(18)), "expected 43 bytes"),
        (idx(dims=(2, 3, 3), body=bytes(17)), "expected 34 bytes.*got 33"),
        (idx(dims=(2, 3, 3), body=bytes(19)), "expected 34 bytes.*got 35"),
        (idx(dims=(2**32 - 1,) * 3, body=bytes(9)), "expected .* got 25"),
    ],
)
def test_mutated_headers(data, field):
    """A wrong header is refused, the message names the field."""
    with pytest.raises(DataError, match=field):
        parse_idx(data, "train-images-idx3-ubyte.gz", num_dims=3)


# The time of day stays out of the data, so that every process of the tests names the cases alike.
XS = gzip.compress(b"x" * 1000, mtime=0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "must be gzip"),
        (b"PK\3\4", "must be gzip"),
        (XS[:-4], "cut short"),
        (XS[:15], "cut short"),
        (XS + b"tail", "trailing bytes"),
        (XS[:-8] + b"\0" * 8, "undamaged"),
        (gzip.compress(bytes(2000), mtime=0), "at most 1,000 bytes"),
    ],
)
def test_damaged_gzip(data, text):
    """Truncated, damaged, oversized and extended gzip data is refused."""
    with pytest.raises(DataError, match=text):
        gunzip(data, "labels.gz", limit=1000)


def test_bomb_stops_at_the_limit():
    """Unpacking stops at the limit instead of filling the memory."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    data = b"".join([*(bomb.compress(bytes(2**20)) for _ in range(64)), bomb.flush()])

    with pytest.raises(DataError, match="at most"):
        gunzip(data, "bomb.gz", limit=2**20)
