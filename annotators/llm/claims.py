"""Which process is asking which question: two runs with one store do not ask, or pay for, the same one.

A claim is a lock on one byte of a file beside the store, at the offset that the question's key names. The operating
system drops it when the process ends, however it ends, so there is nothing to expire or to clean up.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Claims:
    """The claims of this process on the questions of one store."""

    _open: dict[Path, Claims] = {}  # noqa: RUF012 (one for each file and process: closing a second one would drop all)

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")

    @classmethod
    def beside(cls, store: Path) -> Claims:
        """The claims that belong to the store at this path."""
        path = store.with_name(store.name + ".claims").resolve()
        if path not in cls._open:
            cls._open[path] = cls(path)
        return cls._open[path]

    def take(self, key: bytes) -> bool:
        """Claim a question; False while another process has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key), os.SEEK_SET)
        except OSError:
            return False
        return True

    def release(self, key: bytes) -> None:
        """Give a claim back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(key), os.SEEK_SET)


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:8], "little") >> 2
