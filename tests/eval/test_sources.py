"""Boards from directories and files; the fast reader; fetching from a server that misbehaves."""

from __future__ import annotations

import dataclasses
import email.utils
import hashlib
import http.client
import http.server
import json
import threading
import time
import urllib.parse

import numpy as np
import pandas as pd
import pytest

from eval.published import fetch, sources, transfer
from eval.published.board import board
from eval.published.comparison import compare
from eval.published.quick_json import Reader, decoded
from eval.published.rows import frame, from_table
from farm.base.errors import UserError
from farm.tables.formats import read_annotations


def _rows(model: str, n: int = 12, seed: int = 0, **changes):
    generator = np.random.default_rng(seed)
    return [
        {
            "instruction": f'Say "{k}"\\n, é 🙂',
            "output_1": f"base {k}\nline",
            "generator_1": "base",
            "dataset": "one",
            "output_2": "x\t" * (k + 3),
            "generator_2": model,
            "annotator": "judge",
            "preference": float(generator.integers(1, 3)) if k else None,
            "raw_completion": {"a": [1, {"preference": 7}], "text": 'line\n    "preference": 9,'},
        }
        | changes
        for k in range(n)
    ]


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "results"
    for k, model in enumerate(("alpha", "beta", "gamma")):
        folder = root / model / "judge"
        folder.mkdir(parents=True)
        (folder / "annotations.json").write_text(json.dumps(_rows(model, seed=k), indent=2))
    (root / "delta").mkdir()
    return root


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_fast_reader_reads_what_the_general_one_reads(tmp_path, ascii_only):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_rows("m", 50), indent=2, ensure_ascii=ascii_only))
    reader = Reader()
    assert decoded(path) is not None
    slow = from_table(read_annotations(path), path)
    pd.testing.assert_frame_equal(frame([reader.read(path)]), frame([slow]))
    pd.testing.assert_frame_equal(frame([reader.read(path)]), frame([slow]))


@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize(
    ("quick", "changes"),
    [
        (True, {"preference": -1}),
        (True, {"preference": 0}),
        (True, {"preference": "1.0"}),
        (True, {"generator_1": None}),
        (True, {"output_1": None}),
        (False, {"dataset": None}),
        (False, {"status": "ok"}),
        (False, {"method": "another"}),
        (False, {"instruction_id": 7}),
        (False, {"output_2_len": 7}),
        (False, {"input": "more"}),
        (False, {"output_2": "\ud800"}),
        (False, {"instruction": 5}),
        (False, {"generator_2": None}),
        (False, {"preference": True}),
        (False, {"preference": "first"}),
    ],
)
def test_whatever_stands_in_a_row_both_readers_agree(tmp_path, indent, quick, changes):
    """Also where the fast one leaves the file to the other, and in what is wrong."""
    path = tmp_path / "a.json"
    rows = _rows("m", 5)
    rows[3] |= changes
    path.write_text(json.dumps(rows, indent=indent))
    if quick:
        assert decoded(path) is not None
    outcomes = []
    for read in (lambda: Reader().read(path), lambda: from_table(read_annotations(path), path)):
        try:
            outcomes.append(frame([read()]))
        except UserError as error:
            outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1] and not quick
    else:
        pd.testing.assert_frame_equal(*outcomes)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_rows("m"), indent=2)[:-4])
    with pytest.raises(UserError, match="not JSON"):
        Reader().read(path)


def test_published_files(shared_data):
    base = shared_data("alpaca_eval/results")
    reader, paths = Reader(), sorted(base.glob("*/*/annotations.json"))
    assert paths
    for path in paths:
        assert decoded(path) is not None
        expected = from_table(read_annotations(path), path)
        pd.testing.assert_frame_equal(frame([reader.read(path)]), frame([expected]))
        assert (expected["instruction_id"] >= 0).all()


def test_a_results_directory(results):
    rows = sources.read([results])
    made = board(rows, rounds=50)
    assert set(made.rows["method"]) == {"alpha", "beta", "gamma"}
    assert made.rows["n_missing"].tolist() == [1, 1, 1] and made.rows["missing_why"][0] == "1 unparseable"
    again = board(sources.read([results]), rounds=50)
    pd.testing.assert_frame_equal(made.rows, again.rows)


def test_what_a_board_refuses(results, tmp_path):
    folder = results / "alpha" / "other"
    folder.mkdir()
    (folder / "annotations.json").write_text(json.dumps(_rows("alpha")))
    with pytest.raises(UserError, match="several annotators are there"):
        sources.read([results])
    with pytest.raises(UserError, match="no model was judged by `nobody`"):
        sources.read([results], annotator="nobody")
    twice = results / "beta" / "judge" / "annotations.json"
    with pytest.raises(UserError, match=r"row 1: `beta` is judged twice on this instruction \(first in .*row 1\)"):
        sources.read([results, twice], annotator="judge")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(_rows("epsilon", generator_1="another base")))
    with pytest.raises(UserError, match=r"other\.json: row 1: the baseline is `another base`"):
        sources.read([twice, other])
    alien = tmp_path / "alien.csv"
    pd.DataFrame({"instruction_id": [1, 2], "generator_1": "base", "generator_2": "z", "preference": [1, 2]}).to_csv(
        alien, index=False
    )
    with pytest.raises(UserError, match="row 1: `beta` shares no instruction with any other"):
        board(sources.read([twice, alien]))


def test_a_million_rows_of_ids_only(tmp_path):
    """Ids and lengths only, no texts: the compact layout of the published sets."""
    generator = np.random.default_rng(0)
    n, m = 200, 30
    table = pd.DataFrame(
        {
            "model_dir": np.repeat([f"m{k}" for k in range(m)], n),
            "generator_1": "base",
            "generator_2": "x",
            "instruction_id": np.tile(np.arange(n), m),
            "preference": generator.choice([0, 1.0, 2.0], n * m),
            "output_1_len": 10,
            "output_2_len": generator.integers(1, 50, n * m),
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    made = board(sources.read([tmp_path / "t.parquet"]), rounds=20, metrics=["win_rate", "length_controlled"])
    assert len(made.rows) == m and (made.rows["n_draws"] > 0).all()


class _Server(http.server.BaseHTTPRequestHandler):
    """A repository and a hub in one; breaks off every first transfer of a large file, and can lie."""

    files: dict[str, bytes]
    seen: list[tuple[str, str | None]]
    lie = False
    ranges = True
    commit = "1" * 40
    hub_commit = "3" * 40
    busy: list[tuple[int, dict[str, str]]]
    """status and headers of the next answers"""
    authorizations: list[str | None]

    def do_GET(self):
        kind = type(self)
        kind.seen.append((self.path, self.headers.get("Range")))
        kind.authorizations.append(self.headers.get("Authorization"))
        path = urllib.parse.unquote(self.path.split("?")[0])
        if kind.busy:
            status, headers = kind.busy.pop(0)
            return self._send(b"", status, headers)
        if path == "/repos/o/r/commits/main":
            return self._send(json.dumps({"sha": kind.commit}).encode())
        if path == f"/repos/o/r/git/trees/{kind.commit}":
            tree = [
                {"path": p, "type": "blob", "sha": hashlib.sha1(b"blob %d\0" % len(d) + d).hexdigest(), "size": len(d)}
                for p, d in kind.files.items()
            ]
            return self._send(json.dumps({"sha": "abc", "tree": tree, "truncated": False}).encode())
        if path == "/api/datasets/o/r/revision/main":
            return self._send(json.dumps({"sha": kind.hub_commit}).encode())
        name = path.split(f"/{kind.hub_commit if path.startswith('/datasets/') else kind.commit}/", 1)[-1]
        data = kind.files.get(name)
        if data is None:
            return self.send_error(404)
        if kind.lie and name.startswith("results/"):
            data = data.replace(b"alpha", b"alphb")
        asked = self.headers.get("Range")
        first = not any(p == self.path for p, _ in kind.seen[:-1])
        if first and len(data) > 2000 and kind.ranges:  # break off in the middle
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return self.wfile.flush()
        if asked and kind.ranges:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            return self.wfile.write(data[start:])
        return self._send(data)

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None):
        self.send_response(status)
        for header, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def home_of_data():
    board_csv = b",win_rate,n_total\nalpha,50.0,11\n"
    files = {
        "results/alpha/judge/annotations.json": json.dumps(_rows("alpha"), indent=2).encode(),
        "results/beta b/judge/annotations.json": json.dumps(_rows("beta", seed=1), indent=2).encode(),
        "results/beta b/another/annotations.json": b"[]",
        "src/board.csv": board_csv,
        "instruction_difficulty.csv": b"index,instruction_difficulty\n0,0.5\n",
        "df_gamed.csv": b"model,index,preference,std_delta_len,instruction_difficulty\nx,0,0.5,1,0.5\n",
    }
    handler = type("Handler", (_Server,), {"files": files, "seen": [], "busy": [], "authorizations": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    source = fetch.Published(
        "set", "judge", "src/board.csv", True, repository="o/r", files=address, listing=address, hub=address
    )
    yield handler, source
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("farm.base.progress._said", set())


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    return waited


def test_fetch_resumes_checks_and_caches(home_of_data, tmp_path):
    handler, source = home_of_data
    with pytest.raises(UserError, match="run once without `offline`"):
        fetch.fetch(source, offline=True, root=tmp_path)
    assert not handler.seen
    found = fetch.fetch(source, root=tmp_path)
    assert any(asked for _, asked in handler.seen), "a broken transfer goes on where it stopped"
    assert not list(tmp_path.rglob("*.part"))
    rows = sources.read([found.directory], annotator=found.annotator)
    assert set(rows.table["method"]) == {"alpha", "beta b"} and not (tmp_path / "set/results/beta b/another").exists()
    assert found.difficulty is not None and found.regulariser is not None
    before = len(handler.seen)
    assert fetch.fetch(source, offline=True, root=tmp_path) == found and len(handler.seen) == before
    damaged = found.directory / "alpha/judge/annotations.json"
    damaged.write_text(damaged.read_text()[:-50])
    with pytest.raises(UserError, match="1 of 3 files are not in the cache"):
        fetch.fetch(source, offline=True, root=tmp_path)
    fetch.fetch(source, root=tmp_path)
    assert json.loads(damaged.read_text())[0]["generator_2"] == "alpha"


def test_fetch_without_ranges_and_with_lies(home_of_data, tmp_path):
    handler, source = home_of_data
    handler.ranges = False
    fetch.fetch(source, root=tmp_path / "a")
    handler.lie = True
    with pytest.raises(UserError, match="does not match its checksum"):
        fetch.fetch(source, root=tmp_path / "b")
    assert not list((tmp_path / "b").rglob("annotations.json"))
    del handler.files["df_gamed.csv"]
    handler.lie = False
    with pytest.raises(UserError, match="answers 404"):
        fetch.fetch(source, root=tmp_path / "c")
    with pytest.raises(UserError, match="cannot be reached"):
        fetch.fetch(fetch.Published("x", "j", "b", False, listing="http://127.0.0.1:1"), root=tmp_path / "d")


def test_a_branch_that_moves_changes_nothing_that_was_fetched(home_of_data, tmp_path):
    handler, source = home_of_data
    found = fetch.fetch(source, root=tmp_path)
    board_then = found.leaderboard.read_bytes()
    assert any("1" * 40 in path for path, _ in handler.seen), "files are those of the commit"
    handler.commit = "2" * 40  # a server keeps a commit's files; this one gives 404 for them now
    handler.files = handler.files | {"src/board.csv": b",win_rate,n_total\nalpha,60.0,11\n"}
    assert fetch.fetch(source, root=tmp_path) == found and found.leaderboard.read_bytes() == board_then
    listing = tmp_path / "set" / "listing.json"
    noted = json.loads(listing.read_text())
    listing.write_text(json.dumps(noted | {"commit": "main"}))  # as earlier versions noted it
    fetch.fetch(source, root=tmp_path)
    assert found.leaderboard.read_bytes() == handler.files["src/board.csv"]
    assert json.loads(listing.read_text())["commit"] == "2" * 40


def test_a_server_that_asks_to_wait_is_waited_for(home_of_data, tmp_path, pauses, capsys):
    handler, source = home_of_data
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    handler.busy += [(429, {"Retry-After": "7"}), (429, {"Retry-After": later}), (503, {})]
    fetch.fetch(source, root=tmp_path)
    assert pauses[0] == 7 and 90 < pauses[1] <= 100 and 0 < pauses[2] < 5
    said = capsys.readouterr().err
    assert "asks to wait 7 seconds" in said
    for odd in ("nan", "-5", "1e400", "soon", ""):
        handler.busy.append((429, {"Retry-After": odd}))
        pauses.clear()
        transfer.opened(source.commit_url()).close()
        assert len(pauses) == 1 and 0 < pauses[0] <= 5


@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, {"Retry-After": "3600"}), (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999999999"})],
)
def test_a_wait_too_long_is_said_and_not_made(home_of_data, tmp_path, pauses, status, headers):
    handler, source = home_of_data
    handler.busy.append((status, headers))
    with pytest.raises(UserError, match=f"answers {status} and asks to wait .* minutes; run the command again"):
        fetch.fetch(source, root=tmp_path)
    assert pauses == [] and len(handler.seen) == 1


def test_a_server_that_refuses_is_not_asked_again(home_of_data, tmp_path, pauses):
    handler, source = home_of_data
    handler.busy += [(403, {}), (200, {})]
    with pytest.raises(UserError, match="answers 403"):
        fetch.fetch(source, root=tmp_path)
    assert len(handler.seen) == 1 and pauses == []


def test_githubs_token_goes_to_github_alone(home_of_data, tmp_path, monkeypatch):
    handler, source = home_of_data
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    fetch.fetch(source, root=tmp_path)
    assert set(handler.authorizations) == {None}
    with_token = {"Authorization": "Bearer ghp_secret"}
    real = fetch.PUBLISHED["alpaca_eval_2"]
    for url in (real.commit_url(), real.listing_url("1" * 40), real.file_url("a", "1" * 40)):
        assert transfer.headers(url) == with_token
    for url in (
        real.hub_commit_url(),
        real.hub_url("a", "3" * 40),
        "http://api.github.com/a",
        "https://api.github.com.evil.org/a",
        "https://api.github.com@evil.org/a",
        "https://evil.org/api.github.com",
        "https://api.github.com:444/a",
    ):
        assert transfer.headers(url) == {}


def test_a_redirect_gets_no_token(home_of_data, monkeypatch):
    handler, source = home_of_data
    elsewhere = f"{source.listing}/repos/o/r/commits/main"
    handler.busy.append((302, {"Location": elsewhere.replace("127.0.0.1", "localhost")}))
    monkeypatch.setattr(transfer, "headers", lambda url: {"Authorization": "Bearer ghp_secret"})
    transfer.opened(source.commit_url()).close()
    assert handler.authorizations == ["Bearer ghp_secret", None]


def test_another_hub_is_asked_where_hf_endpoint_names_it(home_of_data, tmp_path, monkeypatch):
    handler, source = home_of_data
    monkeypatch.setenv("HF_ENDPOINT", f"{source.files}/")
    found = fetch.fetch(dataclasses.replace(source, hub=None), root=tmp_path)
    assert found.difficulty is not None and found.difficulty.read_bytes() == handler.files["instruction_difficulty.csv"]
    monkeypatch.delenv("HF_ENDPOINT")
    there = dataclasses.replace(source, hub=None)
    assert there.hub_url("a", "3" * 40) == f"https://huggingface.co/datasets/o/r/resolve/{'3' * 40}/a"
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(UserError, match="`HF_ENDPOINT` must be like https://host"):
        fetch.fetch(there, root=tmp_path / "other")


def test_a_hub_whose_branch_moves_changes_nothing_that_was_fetched(home_of_data, tmp_path):
    handler, source = home_of_data
    found = fetch.fetch(source, root=tmp_path)
    assert [p for p, _ in handler.seen if "/resolve/" in p] == [
        f"/datasets/o/r/resolve/{'3' * 40}/{name}" for name in ("instruction_difficulty.csv", "df_gamed.csv")
    ]
    handler.hub_commit = "4" * 40  # a hub keeps a commit's files; this one gives 404 for them now
    assert fetch.fetch(source, root=tmp_path) == found
    found.regulariser.unlink()
    with pytest.raises(UserError, match=f"resolve/{'3' * 40}/df_gamed.csv: the server answers 404"):
        fetch.fetch(source, root=tmp_path)
    (tmp_path / "set" / "hub" / "commit").unlink()  # as earlier versions left it
    handler.files = handler.files | {"instruction_difficulty.csv": b"index,instruction_difficulty\n0,0.7\n"}
    again = fetch.fetch(source, root=tmp_path)
    assert again == found and b"0.7" in again.difficulty.read_bytes(), "both are of one commit"


def test_how_much_is_fetched_is_said_before_and_must_have_room(home_of_data, tmp_path, monkeypatch, capsys):
    handler, source = home_of_data
    fetch.fetch(source, root=tmp_path / "a")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("farm: set: 3 files, 0.0 MB, are fetched into")
    fetch.fetch(source, root=tmp_path / "a")
    assert "are fetched" not in capsys.readouterr().err
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    before = len(handler.seen)
    with pytest.raises(UserError, match=r"to fetch, but .* has room for 0\.0 MB"):
        fetch.fetch(source, root=tmp_path / "b")
    assert len(handler.seen) == before + 2, "the listing alone was asked for"


def test_published_lengths_may_be_off_by_two_and_not_by_184():
    ours = pd.DataFrame({"method": ["a", "b"], "avg_length": [102, 284], "n_total": [805, 805]})
    published = pd.DataFrame({"avg_length": [100, 100], "n_total": [805, 805]}, index=["a", "b"])
    found = compare(ours, published)
    assert found.beyond[["method", "column"]].values.tolist() == [["b", "avg_length"]]


def test_a_token_with_a_line_end_is_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret1234567890\n")
    with pytest.raises(UserError, match="GITHUB_TOKEN") as caught:
        transfer.headers("https://api.github.com/repos/x/y")
    assert "ghp_" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http.client.IncompleteRead(b"{"), "broke off"),
        (TimeoutError(), "broke off"),
        (RecursionError(), "does not answer with a sha"),
    ],
)
def test_a_listing_that_breaks_while_it_is_read_is_one_sentence(monkeypatch, answer, said):
    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, *_):
            raise answer

    monkeypatch.setattr(fetch, "opened", lambda url: Broken())
    with pytest.raises(UserError, match=said):
        fetch._json(fetch.PUBLISHED["alpaca_eval_1"], "https://api.github.com/x", "sha")


FILE = {"sha": "0" * 40, "size": 3}
ODD_FILES = [
    [], None, 1, {"src/board.csv": ["sha", "size"]}, {"src/board.csv": {**FILE, "size": "3"}},
    {"src/board.csv": {**FILE, "size": -1}}, {"src/board.csv": {**FILE, "sha": 0}}, {"results/../x": FILE},
    {"src/board.csv": {"sha": "0" * 40}},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_FILES)
def test_an_odd_listing_in_the_cache_is_fetched_again(home_of_data, tmp_path, odd):
    """A text or a list in the place of an entry ended in a traceback, and a path could lead out of the folder."""
    (tmp_path / "set").mkdir()
    (listing := tmp_path / "set" / "listing.json").write_text(json.dumps({"commit": "1" * 40, "files": odd}))
    with pytest.raises(UserError, match="run once without `offline`"):
        fetch.fetch(home_of_data[1], offline=True, root=tmp_path)
    listing.write_text(json.dumps({"commit": "1" * 40, "files": odd}))
    assert fetch.fetch(home_of_data[1], root=tmp_path).leaderboard.is_file()


@pytest.mark.parametrize("odd", [1, "x", ["a"], [{"type": "blob"}], [{"type": "blob", "path": ["x"], **FILE}],
                                 [{"type": "blob", "path": "../../x", **FILE}]])  # fmt: skip
def test_an_odd_listing_of_a_server_is_one_sentence(monkeypatch, tmp_path, odd):
    monkeypatch.setattr(fetch, "_json", lambda source, url, key: "1" * 40 if key == "sha" else odd)
    with pytest.raises(UserError, match="does not answer with a listing"):
        fetch.fetch(fetch.PUBLISHED["alpaca_eval_1"], root=tmp_path)
    assert not (tmp_path / "alpaca_eval_1").exists()
