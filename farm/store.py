"""The content-addressed store: every model answer and every annotation is a row under a key of all that determined it.

One SQLite file in WAL mode: safe for several threads and processes, append-only (the first writer of a key wins, and a
second gets the same content by construction). Caching, resuming after a crash and the accounting of cost are reads of
this one table.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from farm.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    key BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    price REAL NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID
"""
_LOOKUP = 500  # keys in one SELECT, below SQLite's limit on variables
_READ = 20_000


def home() -> Path:
    """The folder of stores, artifacts and converted models: FARM_HOME, or ~/.cache/feedback-farm."""
    return Path(os.environ.get("FARM_HOME") or Path.home() / ".cache" / "feedback-farm")


def canonical(value: object) -> str:
    """One JSON text for equal plain data: keys sorted, no spaces, numpy scalars as numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a content address")


def address(*parts: object) -> bytes:
    """The 16-byte content address of plain data."""
    return hashlib.blake2b(canonical(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Entry(NamedTuple):
    """One row to store."""

    key: bytes
    value: Any
    """plain data, stored as JSON"""
    input_tokens: int = 0
    output_tokens: int = 0
    price: float = 0.0


class Store:
    """A store in one SQLite file; made when it does not exist.

    Raises:
        UserError: when the file is not such a store.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._local = threading.local()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path.parent}: cannot be made a folder ({error.strerror}); see FARM_HOME") from error
        try:
            self._connection().execute(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path}: cannot be opened ({error})") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: not a store of this program ({error}); name another file") from error

    def _connection(self) -> sqlite3.Connection:
        # SQLite connections may not cross threads or forks.
        if getattr(self._local, "process", None) != os.getpid():
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection, self._local.process = connection, os.getpid()
        return self._local.connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """The values of those keys that are stored."""
        found: dict[bytes, Any] = {}
        connection = self._connection()
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            for key, value in connection.execute(f"SELECT key, value FROM rows WHERE key IN ({marks})", part):  # noqa: S608
                found[key] = json.loads(value)
        return found

    def put(self, kind: str, entries: Iterable[Entry]) -> int:
        """Store entries in one transaction; keys already there are left as they are. Returns how many were new."""
        now = time.time()
        rows = [(e.key, kind, canonical(e.value), e.input_tokens, e.output_tokens, e.price, now) for e in entries]
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            with closing(connection.cursor()) as cursor:
                cursor.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                new = cursor.rowcount
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return new

    def totals(self) -> pd.DataFrame:
        """Rows, tokens and cost (US dollars) by kind."""
        query = (
            "SELECT kind, COUNT(*) AS rows, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens, "
            "SUM(price) AS price FROM rows GROUP BY kind ORDER BY kind"
        )
        cursor = self._connection().execute(query)
        return pd.DataFrame(cursor.fetchall(), columns=[c[0] for c in cursor.description])

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "process", None) == os.getpid():
            self._local.connection.close()
            self._local.process = None
