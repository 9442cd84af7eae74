"""Takes root's right to every file away for a while: tests of missing permissions mean something in containers, too."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
_ANY_FILE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, see capabilities(7)."""


@contextmanager
def without_right_to_every_file() -> Iterator[None]:
    """Obey the modes of files in this thread and those that it starts; nothing changes for an ordinary user."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, capabilities = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert 0 == libc.capget(header, capabilities)
    effective = capabilities[0]
    capabilities[0] = effective & ~_ANY_FILE
    assert 0 == libc.capset(header, capabilities)
    try:
        yield
    finally:
        capabilities[0] = effective
        assert 0 == libc.capset(header, capabilities)
