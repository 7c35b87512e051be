"""How many characters JSON strings have, counted from their bytes without decoding them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


class Unexpected(Exception):
    """The file departs from the pattern; the general reader will say what is wrong, or read it."""


def characters(blob: bytes, bounds: Places) -> NDArray[np.float64]:
    """Characters of JSON strings [n] that lie one after another, from their bytes.

    An escape is one character (a pair of surrogates too), and so is a sequence of UTF-8.
    """
    text = np.frombuffer(blob, np.uint8)
    edges, sizes = bounds[:-1], np.diff(bounds)
    if (sizes < 2).any() or (text[edges] != 34).any() or (text[bounds[1:] - 1] != 34).any():
        raise Unexpected
    out = sizes - 2
    at, spared = _escapes(text)
    total = np.concatenate([[0], np.cumsum(spared)])
    out = out - np.diff(total[np.searchsorted(at, bounds)])
    if not blob.isascii():
        try:
            blob.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unexpected from error
        following = np.flatnonzero((text & 0xC0) == 0x80)
        out = out - np.diff(np.searchsorted(following, bounds))
    return out.astype(np.float64)


def _escapes(text: Bytes) -> tuple[Places, Places]:
    """Where escapes begin in a JSON text, and by how many bytes each is longer than what it stands for."""
    slashes = np.flatnonzero(text == 92)
    if not slashes.size:
        return slashes, slashes
    close = np.flatnonzero(slashes[1:] - slashes[:-1] == 1)
    at = slashes
    if close.size:  # in a run of backslashes every second one is escaped by the one before it
        opens = np.ones(slashes.size, bool)
        opens[close + 1] = False
        start = slashes[opens][np.cumsum(opens) - 1]
        at = slashes[(slashes - start) & 1 == 0]
    spared = np.ones(at.size, np.int64)
    unicode = np.flatnonzero(text[at + 1] == 117)
    if unicode.size:
        places = at[unicode]
        if places[-1] + 5 >= len(text):
            raise Unexpected
        spared[unicode] = 5
        is_d = (text[places + 2] | 32) == 100
        if is_d.any():
            third = text[places + 3] | 32
            high = is_d & ((third == 56) | (third == 57) | (third == 97) | (third == 98))
            low = is_d & ((third >= 99) & (third <= 102))
            follows = np.concatenate([[False], (np.diff(places) == 6) & high[:-1]]) & low
            spared[unicode[follows]] = 6
    return at, spared
