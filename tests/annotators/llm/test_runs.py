"""Runs that lose and repeat nothing: kill -9, two processes, budgets, dry runs, stale rows, reading answers anew."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from annotators.llm import prices, prompt, verdicts
from annotators.llm import session as sessions
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import mock
from annotators.llm.completion import Completion, Request
from annotators.llm.session import session
from annotators.noise.flip import Flip
from farm.asking.limits import NO_ROOM, Limits
from farm.base import progress
from farm.base.errors import UserError
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import FaultServer

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from annotators.llm.annotator import LLMAnnotator
from farm.asking.limits import NO_ROOM, Limits
from annotators.llm.session import session
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
url, path, n, out = sys.argv[1:]
with session(Limits(concurrency=8)) as run:
    print("ready", flush=True)
    sys.stdin.readline()
    pairs = make_pairs(int(n))
    table = LLMAnnotator("openai/judge", "plain", base_url=url + "/v1", store=Store(path)).annotate(pairs, seed=0)
    assert (table["status"] == "ok").all()
    assert (table["preference"] == longer(pairs)).all()
    print(run.tally.asked, run.tally.cached, flush=True)
"""


def start(server: FaultServer, store: Path, n: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url, str(store), str(n), ""],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def finished(process: subprocess.Popen[str]) -> tuple[int, int]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    asked, cached = out.split()
    return int(asked), int(cached)


def test_kill_9_loses_at_most_what_is_in_flight_and_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    path, n, concurrency = tmp_path / "store.sqlite", 200, 8
    with FaultServer(delay=0.01) as server:
        for kills, cut in enumerate((30, 90), start=1):
            process = start(server, path, n)
            go(process)
            while len(server.answered) < cut:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = int(Store(path).totals()["rows"].sum())
            assert kept >= len(set(server.answered)) - kills * concurrency
        process = start(server, path, n)
        go(process)
        asked, cached = finished(process)
        assert (asked, cached) == (n - kept, kept)
        assert len(server.answered) <= n + 2 * concurrency, "only what was in flight at a kill is asked again"
        assert len(set(server.answered)) == n


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    path, n = tmp_path / "store.sqlite", 300
    with FaultServer(delay=0.01) as server:
        both = [start(server, path, n) for _ in range(2)]
        for process in both:
            go(process)
        for process in both:
            finished(process)
        assert len(set(server.answered)) == n
        assert len(server.answered) == n, "they share the work, and pay for nothing twice"
    assert int(Store(path).totals()["rows"].sum()) == n


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mock/shorter"}, {"prompt": "plain_line"}, {"temperature": 0.7}, {"max_tokens": 7},
        {"persona": "You are in a hurry."}, {"effort": "low"}, {"probabilities": False}, {"base_url": "http://other"},
    ],
    ids=lambda c: next(iter(c)),
)  # fmt: skip
def test_a_changed_annotator_is_never_served_a_stale_row(
    change: dict[str, Any], pairs: pd.DataFrame, store: Store
) -> None:
    if "base_url" in change:  # the mock has no address; servers do
        first = sessions.Question("openai", None, Request("m", "", "u", 1))
        assert first.key() != replace(first, base_url="http://other").key()
        return
    before = LLMAnnotator("mock/longer", store=store)
    before.annotate(pairs, seed=0)
    with session() as run:
        replace(before, name="", **change).annotate(pairs, seed=0)
    assert run.tally.cached == 0


def test_seed_replicate_order_and_texts_are_in_the_key_and_the_name_is_not(pairs: pd.DataFrame, store: Store) -> None:
    annotator = LLMAnnotator("mock/coin", temperature=1.0, store=store)
    base = annotator.annotate(pairs, seed=0)
    for other in (
        lambda: annotator.annotate(pairs, seed=1),
        lambda: annotator.annotate(pairs, seed=0, replicate=1),
        lambda: annotator.annotate(pairs.assign(output_1=pairs["output_1"] + "."), seed=0),
    ):
        with session() as run:
            other()
        assert run.tally.cached == 0
    with session() as run:
        again = replace(annotator, name="another name").annotate(pairs.iloc[::-1], seed=0)
    assert run.tally.asked == 0
    assert (again["preference"].iloc[::-1].to_numpy() == base["preference"].to_numpy()).all()


def test_an_edited_template_is_another_annotator(tmp_path: Path, pairs: pd.DataFrame, store: Store) -> None:
    text = (prompt.FOLDER / "plain.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text)
    (tmp_path / "two.yaml").write_text(text.replace("better, 1 or 2?", "better?"))
    for name in ("one", "two"):
        with session() as run:
            LLMAnnotator("mock/longer", str(tmp_path / f"{name}.yaml"), store=store).annotate(pairs, seed=0)
        assert run.tally.asked == len(pairs)


def test_unparseable_answers_keep_their_text_and_are_read_anew_without_paying(
    pairs: pd.DataFrame, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotator = LLMAnnotator("mock/mumble", "plain_line", store=store)
    table = annotator.annotate(pairs, seed=0)
    assert (table["status"] == "unparseable").all()
    assert table["preference"].isna().all()
    assert (table["answer"] == "Both have their merits, it depends.").all()
    monkeypatch.setattr(verdicts, "pairwise", lambda text, form, count: [1.5] * count)
    with session() as run:
        again = annotator.annotate(pairs, seed=0)
    assert run.tally.asked == 0
    assert (again["preference"] == 1.5).all()
    assert (again["status"] == "ok").all()


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0))


@pytest.mark.parametrize("budget", [0.0, 0.004, 0.013, 0.03])
def test_the_budget_is_never_exceeded(budget: float, priced: None, pairs: pd.DataFrame, store: Store) -> None:
    with FaultServer(delay=0.005) as server, session(Limits(budget=budget, concurrency=8)) as run:
        annotator = LLMAnnotator("openai/judge", base_url=server.url, store=store)
        table = annotator.annotate(pairs, seed=0)
        cost = 100 * 10e-6 + 5 * 40e-6  # what the server says each answer used
        assert len(server.answered) == run.tally.asked
        assert len(server.answered) * cost <= budget
    assert float(store.totals()["price"].sum()) <= budget
    assert table["status"].isin(["ok", "unobserved"]).all()
    assert table["price"].sum() == pytest.approx(run.tally.cost) == pytest.approx(run.tally.asked * cost)
    assert (table.loc[table["status"] == "unobserved", "failure"] == NO_ROOM).all()


def test_a_budget_is_used_and_a_larger_one_goes_on(priced: None, pairs: pd.DataFrame, store: Store) -> None:
    with FaultServer() as server:
        annotator = LLMAnnotator("openai/judge", base_url=server.url, store=store)
        with session(Limits(budget=0.03, concurrency=8)) as run:
            annotator.annotate(pairs, seed=0)
        assert run.tally.asked >= 15, "the worst case of a question is set aside, not of all"
        with session(Limits(budget=1.0)) as more:
            table = annotator.annotate(pairs, seed=0)
        assert (table["status"] == "ok").all()
        assert more.tally.cached == run.tally.asked
        assert len(server.answered) == len(pairs)


def test_a_budget_needs_a_price(pairs: pd.DataFrame, store: Store) -> None:
    annotator = LLMAnnotator("openai/unheard-of", store=store)
    with session(Limits(budget=1.0)), pytest.raises(UserError, match="no price is known"):
        annotator.annotate(pairs, seed=0)


def test_a_dry_run_counts_and_prices_and_asks_nothing(priced: None, pairs: pd.DataFrame, store: Store) -> None:
    with FaultServer() as server:
        annotator = LLMAnnotator("openai/judge", base_url=server.url, store=store)
        annotator.annotate(pairs.iloc[:10], seed=0)
        with session(Limits(dry_run=True)) as run:
            table = annotator.annotate(pairs, seed=0)
        assert len(server.answered) == 10
    assert (run.tally.questions, run.tally.cached, run.tally.unasked) == (40, 10, 30)
    assert run.tally.cost == pytest.approx((run.tally.input_tokens * 10 + 30 * 40) / 1e6)
    assert 30 * 60 < run.tally.input_tokens < 30 * 250
    assert (table["status"] == "unobserved").sum() == 30


def test_flipped_labels_cost_no_call(pairs: pd.DataFrame, store: Store) -> None:
    with session() as run:
        table = Flip(LLMAnnotator("mock/longer", store=store), rate=0.25).annotate(pairs, seed=0)
    assert 0 < run.tally.asked == (~table["coin"].astype(bool)).sum() < len(pairs)


def test_inside_a_running_loop(pairs: pd.DataFrame, store: Store) -> None:
    async def notebook() -> pd.DataFrame:
        return LLMAnnotator("mock/longer", store=store).annotate(pairs, seed=0)

    assert (asyncio.run(notebook())["preference"] == longer(pairs)).all()


def test_several_threads_share_one_run(store: Store) -> None:
    tables: list[pd.DataFrame] = []

    def one(k: int) -> None:
        tables.append(LLMAnnotator("mock/longer", store=store).annotate(make_pairs(50, 50 * k), seed=0))

    with session() as run:
        threads = [threading.Thread(target=one, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert run.tally.asked == 200
    assert all((t["status"] == "ok").all() for t in tables)


def test_equal_questions_are_asked_once(pairs: pd.DataFrame, store: Store) -> None:
    with session() as run:
        LLMAnnotator("mock/longer", store=store).annotate(pd.concat([pairs, pairs]), seed=0)
    assert run.tally.asked == len(pairs)


def test_progress_shows_rows_and_cost(priced: None, pairs: pd.DataFrame, store: Store) -> None:
    with FaultServer() as server, progress.task("annotating") as task:
        with session():
            LLMAnnotator("openai/judge", base_url=server.url, store=store).annotate(pairs, seed=0)
        assert task.done == len(pairs)
        assert task.cost == pytest.approx(len(pairs) * 0.0012)


def test_ctrl_c_keeps_what_is_done(
    pairs: pd.DataFrame, store: Store, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """And questions that were under way have ended before their loop does: asyncio complained of each."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, was))
    main = threading.main_thread().ident

    def interrupt() -> None:
        until = time.monotonic() + 60
        while not int(store.totals()["rows"].sum()) and time.monotonic() < until:
            time.sleep(0.005)
        signal.pthread_kill(main, signal.SIGINT)  # type: ignore[arg-type]

    with FaultServer(delay=0.2) as server:
        annotator = LLMAnnotator("openai/judge", base_url=server.url, store=store)
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt), session(Limits(concurrency=4)) as run:
            annotator.annotate(pairs, seed=0)
        gc.collect()
        assert "destroyed" not in caplog.text
        kept = int(store.totals()["rows"].sum())
        assert 0 < kept < len(pairs)
        assert kept >= run.tally.asked


def test_a_models_own_choice_of_words_is_priced_per_row(pairs: pd.DataFrame, store: Store) -> None:
    @mock.script("three tokens")
    def _(request: Request) -> Completion:
        return Completion("Verdict: 1", input_tokens=300, output_tokens=3, model="m-1")

    table = LLMAnnotator("mock/three tokens", "plain_line", store=store).annotate(pairs, seed=0)
    assert (table["input_tokens"] == 300).all()
    assert (table["model"] == "m-1").all()
    assert np.isfinite(table["seconds"]).all()
