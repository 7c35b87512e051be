"""The store: append-only, content-addressed, safe for several processes."""

import multiprocessing
import random
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.base.errors import UserError
from farm.storage.store import Entry, Store, address, canonical


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


def _filled(path: Path, n: int = 300) -> dict[bytes, object]:
    values: dict[bytes, object] = {
        address(i): {"text": f"answer {i} " * (i % 7), "logprobs": [i / 7]} for i in range(n)
    }
    store = Store(path)
    store.put("answer", [Entry(k, v, 3, 2, 0.25) for k, v in values.items()])
    store.close()
    return values


def test_a_flipped_bit_never_gives_a_wrong_answer_nor_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anywhere in the file: a row is what was written or missing, and what is asked again is kept."""
    path = tmp_path / "s.sqlite"
    values = _filled(path)
    sound = path.read_bytes()
    chance = random.Random(3)
    refused = missing = spare = 0
    places = [*range(0, 100, 9), *(chance.randrange(len(sound)) for _ in range(120))]
    for number, place in enumerate(places):
        other = tmp_path / str(number) / "s.sqlite"
        other.parent.mkdir()
        data = bytearray(sound)
        data[place] ^= 1 << chance.randrange(8)
        other.write_bytes(data)
        try:
            store = Store(other)
            found = store.get(list(values))
            assert all(found[key] == values[key] for key in found)
            lost = [key for key in values if key not in found]
            missing += bool(lost)
            store.put("answer", [Entry(key, values[key], 3, 2, 0.25) for key in lost])
            store.close()
            again = Store(other)
            assert again.get(list(values)) == values, "what was asked again is kept"
            again.close()
            spare += (other.parent / "s.sqlite.spare").exists()
        except UserError as error:
            assert str(other) in str(error) and len(str(error)) < 300
            refused += 1
        shutil.rmtree(other.parent)
    assert missing > 50 and spare > 0 and refused < 30
    assert "is damaged" in capsys.readouterr().err


def test_a_store_of_an_earlier_version_keeps_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    values = _filled(path, 5)
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE rows DROP COLUMN digest")
    connection.commit()
    connection.close()
    store = Store(path)
    assert store.get(list(values)) == values
    store.put("answer", [Entry(address("new"), 1)])
    assert store.get([address("new")]) == {address("new"): 1}


def test_two_that_open_a_store_of_an_earlier_version_at_once_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has seen that the column is missing when the first adds it."""
    path = tmp_path / "s.sqlite"
    values = _filled(path, 5)
    first = sqlite3.connect(path, isolation_level=None)
    first.execute("ALTER TABLE rows DROP COLUMN digest")
    first.execute("BEGIN IMMEDIATE")
    first.execute("ALTER TABLE rows ADD COLUMN digest BLOB")
    waiting = threading.Event()

    class Watched(sqlite3.Connection):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            self.set_trace_callback(lambda said: waiting.set() if said.startswith(("ALTER", "BEGIN")) else None)

    connect = sqlite3.connect
    monkeypatch.setattr("farm.storage.store.sqlite3.connect", lambda *a, **k: connect(*a, **k, factory=Watched))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: Store(path).get(list(values)))
        assert waiting.wait(60)
        first.execute("COMMIT")
        assert second.result() == values


def test_a_full_disk_loses_no_answer_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("farm.storage.store._PAUSE", 0.0)
    store = Store(tmp_path / "s.sqlite")
    store.put("answer", [Entry(address(0), 0)])
    pages = store._connection().execute("PRAGMA page_count").fetchone()[0]
    store._connection().execute(f"PRAGMA max_page_count = {pages}")
    big = {address(i): "x" * 9000 for i in range(1, 9)}
    for key, value in big.items():
        assert store.put("answer", [Entry(key, value)]) == 1
    assert store.get([address(0), *big]) == {address(0): 0, **big}
    said = capsys.readouterr().err
    assert said.count("disk is full") == 1 and "s.sqlite" in said and "kept in memory" in said
    assert Store(tmp_path / "s.sqlite").get(list(big)) == {}
    store._connection().execute("PRAGMA max_page_count = 1000000")
    assert store.put("answer", [Entry(address(9), 9)]) == 1
    assert Store(tmp_path / "s.sqlite").get([*big, address(9)]) == {**big, address(9): 9}


def test_what_could_not_be_stored_by_the_end_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "s.sqlite")
    store._connection().execute("PRAGMA max_page_count = 1")
    store.put("answer", [Entry(address(i), "x" * 9000) for i in range(3)])
    store._last_try()
    assert "s.sqlite: 3 answers could not be stored" in capsys.readouterr().err


def test_a_store_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    _filled(tmp_path / "s.sqlite", 1)
    store = Store(tmp_path / "s.sqlite")
    store._connection().execute("PRAGMA query_only = 1")
    with pytest.raises(UserError, match=r"s\.sqlite: cannot be written"):
        store.put("answer", [Entry(address("new"), 1)])


def test_half_of_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put("answer", [Entry(address(1), {"text": "half \ud83d é"})])
    assert store.get([address(1)]) == {address(1): {"text": "half \ud83d é"}}


def test_what_is_stored_is_on_the_disk(tmp_path: Path) -> None:
    """FULL: in WAL mode NORMAL loses the last commits in a power cut."""
    assert Store(tmp_path / "s.sqlite")._connection().execute("PRAGMA synchronous").fetchone()[0] == 2
