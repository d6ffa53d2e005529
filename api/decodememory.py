"""Memory for decoding pictures, shared out among the threads of one process.

A file of 90 kB may hold a picture of 50 megapixels, which takes a decoder and what follows it up to 0.9 GiB.
So threads wait until what they are about to decode fits into `MOST_BYTES` beside what others decode; one that
is larger than that is decoded alone. Small pictures never wait: 12-megapixel JPEGs fit four at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

MOST_BYTES = 320 << 20

_BYTES_A_PIXEL = {"JPEG": 6, "WEBP": 19}
_BYTES_A_PIXEL_ELSE = 12
"""Peak memory by format, measured with pictures of 7000 x 7000: progressive JPEG, WebP and PNG with alpha."""

_TRIM_BYTES = 160 << 20
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def decoding_bytes(format_name: str, width: int, height: int) -> int:
    """What decoding such a picture may take at its peak, roughly.

    Args:
        format_name: Pillow's.
        width: in pixels.
        height: in pixels.
    """
    return width * height * _BYTES_A_PIXEL.get(format_name, _BYTES_A_PIXEL_ELSE)


class DecodeMemory:
    """See the module's text.

    Args:
        most: bytes that may be taken at once, but by one picture alone.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def room(self, nbytes: int) -> Iterator[None]:
        """Hold `nbytes`, once there is room for them; afterwards they are the system's again."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + nbytes <= self._most)
            self._held += nbytes
        try:
            yield
        finally:
            if nbytes >= _TRIM_BYTES and _trim is not None:
                _trim(0)  # the C library would keep it for the next one
            with self._changed:
                self._held -= nbytes
                self._changed.notify_all()
