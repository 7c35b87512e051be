"""The store: append-only, content-addressed, safe for several processes."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from farm.errors import UserError
from farm.store import Entry, Store, address, canonical


def test_addresses_depend_on_content_and_not_on_key_order() -> None:
    assert address({"a": 1, "b": 2}) == address({"b": 2, "a": 1})
    assert address({"a": 1}) != address({"a": 2})
    assert address("a", "b") != address("ab")
    assert len(address(None)) == 16
    with pytest.raises(TypeError, match="content address"):
        canonical(object())


def test_first_writer_wins_and_totals_count_cost(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    keys = [address(i) for i in range(1200)]
    assert store.put("answer", [Entry(k, {"i": i}, 3, 2, 0.25) for i, k in enumerate(keys)]) == 1200
    assert store.put("answer", [Entry(keys[0], {"i": "other"})]) == 0
    found = store.get([*keys, address("absent")])
    assert len(found) == 1200
    assert found[keys[0]] == {"i": 0}
    row = store.totals().iloc[0]
    assert (row["rows"], row["input_tokens"], row["price"]) == (1200, 3600, 300.0)


def test_rows_survive_reopening_and_a_failed_batch_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put("x", [Entry(address(1), 1)])
    with pytest.raises(TypeError):
        store.put("x", [Entry(address(2), 2), Entry(address(3), object())])
    store.close()
    assert Store(tmp_path / "s.sqlite").get([address(1), address(2)]) == {address(1): 1}


def _write(path: Path, worker: int) -> None:
    store = Store(path)
    for i in range(50):
        store.put("x", [Entry(address(i), i), Entry(address(worker, i), worker)])


def test_several_processes_write_at_once_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    workers = [multiprocessing.get_context("spawn").Process(target=_write, args=(path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Store(path).totals()["rows"].tolist() == [50 + 3 * 50]
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one " * 20)
    with pytest.raises(UserError, match=r"notes\.txt: not a store"):
        Store(path)
