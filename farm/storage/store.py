"""The content-addressed store: every model answer and every annotation is a row under a key of all that determined it.

One SQLite file in WAL mode: safe for several threads and processes, append-only (the first writer of a key wins, and a
second gets the same content by construction). Caching, resuming after a crash and the accounting of cost are reads of
this one table.

What was stored has reached the disk, and each row has a digest of itself. A row that cannot be read, or is no longer
what was written, counts as missing, and the next one with its key takes its place. Where the disk is full rows are kept
in this process and tried again with those that come; where a page of the file is damaged they go to a file beside it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from farm.base import progress
from farm.base.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    key BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    price REAL NOT NULL,
    created REAL NOT NULL,
    digest BLOB
) WITHOUT ROWID
"""
_LOOKUP = 500  # keys in one SELECT, below SQLite's limit on variables
_INSERT = (
    "INSERT OR IGNORE INTO rows (key, kind, value, input_tokens, output_tokens, price, created, digest) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_READ = (
    "SELECT key, CAST(value AS BLOB), CAST(kind AS BLOB), input_tokens, output_tokens, price, digest FROM rows "
    "WHERE key"
)
_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY}
"""why a row is not taken now and may be later"""
_PAUSE = 2.0
"""seconds between two tries at a full disk"""


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
        self._lock = threading.Lock()
        self._unwritten: dict[bytes, Row] = {}
        self._tried = -_PAUSE
        self._damaged: set[bytes] = set()
        self._opened_spare: Store | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path.parent}: cannot be made a folder ({error.strerror}); see FARM_HOME") from error
        try:
            connection = self._connection()
            connection.execute(_SCHEMA)
            if not _has_digests(connection):  # a store of an earlier version
                _add_digests(connection)
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path}: cannot be opened ({error})") from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: not a store of this program, or damaged ({error}); move it away or name another file"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        # SQLite connections may not cross threads or forks.
        if getattr(self._local, "process", None) != os.getpid():
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection, self._local.process = connection, os.getpid()
        return self._local.connection

    def _spare(self, make: bool = False) -> Store | None:
        """The store that takes the rows which this one, being damaged, does not."""
        path = self.path.with_name(f"{self.path.name}.spare")
        if self._opened_spare is None and (make or path.exists()):
            self._opened_spare = Store(path)
        return self._opened_spare

    def get(self, keys: Sequence[bytes], read: Callable[[Any], Any] = lambda value: value) -> dict[bytes, Any]:
        """The values of those keys that are stored and readable.

        Args:
            read: makes of a stored value what is returned; where it raises ValueError or TypeError, as for what another
                version of the program stored, the row counts as missing.

        Raises:
            UserError: when the file cannot be read at all.
        """
        found: dict[bytes, Any] = {}
        damaged: set[bytes] = set()
        for start in range(0, len(keys), _LOOKUP):
            for key, *row in self._rows(keys[start : start + _LOOKUP], damaged):
                try:
                    found[key] = read(_checked(key, *row))
                except (ValueError, TypeError):
                    damaged.add(key)
        if damaged:
            progress.note(
                f"{self.path}: is damaged or of another version; what cannot be read counts as missing and is asked "
                "for again"
            )
        with self._lock:
            self._damaged |= damaged
            found |= {key: read(json.loads(self._unwritten[key].value)) for key in keys if key in self._unwritten}
        if len(found) < len(keys) and (spare := self._spare()) is not None:
            found |= spare.get([key for key in keys if key not in found], read)
        return found

    def _rows(self, keys: Sequence[bytes], damaged: set[bytes]) -> list[Any]:
        """The rows of these keys, with those that cannot be read added to ``damaged``."""
        marks = ",".join("?" * len(keys))
        try:
            return self._connection().execute(f"{_READ} IN ({marks})", keys).fetchall()
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from error
        except sqlite3.DatabaseError:  # a damaged page, which others of these keys may not need
            if len(keys) == 1:
                damaged.add(keys[0])
                return []
            middle = len(keys) // 2
            return self._rows(keys[:middle], damaged) + self._rows(keys[middle:], damaged)

    def put(self, kind: str, entries: Iterable[Entry]) -> int:
        """Store entries in one transaction; readable keys already there are left as they are. Returns how many are new.

        On a full disk they are kept in this process, where ``get`` finds them, and tried again with the next ones.
        """
        now = time.time()
        return self._put([_row(kind, entry, now) for entry in entries])

    def _put(self, rows: Sequence[Row]) -> int:
        with self._lock:
            before = len(self._unwritten)
            if before and time.monotonic() - self._tried < _PAUSE:
                self._unwritten |= {row.key: row for row in rows if row.key not in self._unwritten}
                return len(self._unwritten) - before
            waiting = [*self._unwritten.values(), *rows]
            try:
                new = self._write(waiting)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _PASSING:
                    raise UserError(f"{self.path}: cannot be written ({error})") from error
                self._tried = time.monotonic()
                if not self._unwritten:
                    atexit.register(self._last_try)
                self._unwritten |= {row.key: row for row in rows if row.key not in self._unwritten}
                progress.note(
                    f"{self.path}: answers cannot be stored now ({error}); they are kept in memory and tried again, "
                    "so make room before the run ends"
                )
                return len(self._unwritten) - before
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError or (spare := self._spare(make=True)) is None:
                    raise
                progress.note(f"{self.path}: is damaged ({error}); new rows go to {spare.path}")
                new = spare._put(waiting)
            self._unwritten.clear()
        return new - before

    def _write(self, rows: Sequence[Row]) -> int:
        damaged = [(row.key,) for row in rows if row.key in self._damaged]
        connection = self._connection()
        with _transaction(connection):
            connection.executemany("DELETE FROM rows WHERE key = ?", damaged)
            new = connection.executemany(_INSERT, rows).rowcount
        self._damaged -= {key for (key,) in damaged}
        return new

    def _last_try(self) -> None:
        """At the end of the process."""
        self._tried = -_PAUSE
        with contextlib.suppress(sqlite3.Error, UserError):
            self._put([])
        if self._unwritten:
            progress.note(f"{self.path}: {len(self._unwritten)} answers could not be stored and are lost")

    def prices(self) -> dict[bytes, float]:
        """Key -> US dollars, of every row that is readable.

        Raises:
            UserError: when the file is damaged.
        """
        try:
            return dict(self._connection().execute("SELECT key, price FROM rows").fetchall())
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: cannot be read as a whole ({error})") from error

    def totals(self) -> pd.DataFrame:
        """Rows, tokens and cost (US dollars) by kind.

        Raises:
            UserError: when the file is damaged.
        """
        query = (
            "SELECT kind, COUNT(*) AS rows, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens, "
            "SUM(price) AS price FROM rows GROUP BY kind ORDER BY kind"
        )
        try:
            cursor = self._connection().execute(query)
            return pd.DataFrame(cursor.fetchall(), columns=[c[0] for c in cursor.description])
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: cannot be read as a whole ({error})") from error

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "process", None) == os.getpid():
            self._local.connection.close()
            self._local.process = None


def _has_digests(connection: sqlite3.Connection) -> bool:
    return any(column[1] == "digest" for column in connection.execute("PRAGMA table_info(rows)"))


def _add_digests(connection: sqlite3.Connection) -> None:
    """Add the column; several processes that open one store at once take turns, and the first does it."""
    with _transaction(connection):
        if not _has_digests(connection):
            connection.execute("ALTER TABLE rows ADD COLUMN digest BLOB")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The block alone writes to the file, and what it wrote is kept where it ends without an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back itself
            connection.execute("ROLLBACK")
        raise


class Row(NamedTuple):
    """One row of the table."""

    key: bytes
    kind: str
    value: str
    input_tokens: int
    output_tokens: int
    price: float
    created: float
    digest: bytes


def _row(kind: str, entry: Entry, now: float) -> Row:
    value = canonical(entry.value)
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        value = json.dumps(json.loads(value), separators=(",", ":"))
    used = int(entry.input_tokens), int(entry.output_tokens), float(entry.price)
    return Row(entry.key, kind, value, *used, now, _digest(entry.key, value.encode(), kind.encode(), *used))


def _digest(key: bytes, value: bytes, kind: bytes, input_tokens: int, output_tokens: int, price: float) -> bytes:
    beside = b"\0%b\0%d\0%d\0%b" % (kind, input_tokens, output_tokens, repr(price).encode())
    return hashlib.blake2b(key + value + beside, digest_size=8).digest()


def _checked(
    key: bytes, value: bytes, kind: bytes, input_tokens: int, output_tokens: int, price: float, digest: bytes | None
) -> Any:
    """The value of a row. Raises ValueError where it is not what was written; rows of old stores have no digest."""
    if digest is not None and digest != _digest(key, value, kind, input_tokens, output_tokens, price):
        raise ValueError("damaged")
    return json.loads(value)
