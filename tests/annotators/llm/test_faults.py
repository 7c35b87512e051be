"""Servers that fail: what is retried, what pauses, what stops, and what a row that failed looks like."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import wire
from annotators.llm.session import session
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer, Plan

ENDPOINTS = ["openai/judge", "anthropic/judge"]


@pytest.fixture(params=[True, False], ids=["straight", "through the SDK"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure is met on both ways to a server."""
    monkeypatch.setattr(wire, "LEAN", request.param)


def judge(model: str, server: FaultServer, store: Store, **settings: Any) -> LLMAnnotator:
    prompt = settings.pop("prompt", "plain_line")
    base = server.url + ("/v1" if model.startswith("openai") else "")
    return LLMAnnotator(model, prompt, base_url=base, store=store, **settings)


def sometimes(fault: Fault, every: int = 3) -> Plan:
    return lambda number, body, headers: fault if number % every == 0 else None


@pytest.mark.parametrize("model", ENDPOINTS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"retry-after": "0.01"}, body={"error": {"message": "slow down", "type": "rate"}}),
        Fault(status=500),
        Fault(status=529, body={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        Fault(hang_up=True),
        Fault(truncate=True),
        Fault(raw=b"<html>gateway</html>"),
        Fault(raw=b'{"choices": [], "content": 3}'),
        Fault(raw=b"[1, 2"),
        Fault(raw=b""),
    ],
    ids=["429", "500", "529", "hang up", "truncated", "html", "wrong shape", "garbage", "empty"],
)
def test_passing_failures_are_tried_again(
    model: str, fault: Fault, pairs: pd.DataFrame, store: Store, quick: Limits
) -> None:
    patient = replace(quick, attempts=30)  # a third of all tries fails, so that six in a row are not rare enough
    with FaultServer(sometimes(fault)) as server, session(patient) as run:
        table = judge(model, server, store).annotate(pairs, seed=0)
        assert (table["status"] == "ok").all()
        assert (table["preference"] == longer(pairs)).all()
        assert run.tally.retried > 0
        assert len(server.answered) == len(set(server.answered)) == len(pairs)


def test_retry_after_is_honoured_by_all(store: Store) -> None:
    times: list[float] = []

    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        times.append(time.monotonic())
        return Fault(status=429, headers={"retry-after": "0.5"}) if number == 0 else None

    with FaultServer(plan) as server, session(Limits(shortest_wait=0.01, concurrency=1)):
        table = judge("openai/judge", server, store).annotate(make_pairs(3), seed=0)
    assert (table["status"] == "ok").all()
    assert times[1] - times[0] >= 0.5


@pytest.mark.parametrize("model", ENDPOINTS)
def test_slow_bytes_run_into_the_timeout(model: str, store: Store) -> None:
    """An answer of 400 bytes, two seconds each: no single wait is long, the whole is."""
    plan: Plan = lambda number, body, headers: Fault(seconds_a_byte=2.0) if number == 0 else None  # noqa: E731
    started = time.monotonic()
    with FaultServer(plan) as server, session(Limits(timeout=3.0, shortest_wait=0.01, concurrency=2)) as run:
        table = judge(model, server, store).annotate(make_pairs(3), seed=0)
        assert run.tally.retried == 1
    assert (table["status"] == "ok").all()
    assert time.monotonic() - started < 400


def test_a_row_that_fails_for_good_is_an_error_and_is_asked_again_later(
    pairs: pd.DataFrame, store: Store, quick: Limits
) -> None:
    poisoned = pairs["output_1"][7]

    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        return Fault(status=500) if poisoned in body["messages"][-1]["content"] else None

    with FaultServer(plan) as server:
        with session(quick):
            table = judge("openai/judge", server, store).annotate(pairs, seed=0)
        assert table["status"].value_counts().to_dict() == {"ok": 39, "error": 1}
        assert table["status"][7] == "error"
        assert np.isnan(table["preference"][7])
        assert "500" in table["failure"][7]
        server.plan = None
        with session(quick) as run:
            again = judge("openai/judge", server, store).annotate(pairs, seed=0)
        assert (again["status"] == "ok").all()
        assert (run.tally.cached, run.tally.asked) == (39, 1)


def test_a_question_too_long_is_refused_once_and_not_repeated(store: Store, quick: Limits) -> None:
    body = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}
    with FaultServer(lambda *_: Fault(status=400, body=body)) as server, session(quick):
        table = judge("openai/judge", server, store).annotate(make_pairs(2), seed=0)
        assert len(server.seen) == 2
    assert (table["status"] == "error").all()
    assert "context length" in table["failure"][0]


@pytest.mark.parametrize("model", ENDPOINTS)
def test_a_wrong_key_stops_at_once_with_one_sentence(model: str, store: Store, quick: Limits) -> None:
    body = {"error": {"message": "Incorrect API key provided: sk-proj-SECRETSECRET1234567890"}}
    with FaultServer(lambda *_: Fault(status=401, body=body)) as server, session(quick):
        with pytest.raises(UserError, match="refuses the key") as caught:
            judge(model, server, store, key="JUDGE_KEY").annotate(make_pairs(500), seed=0)
        assert len(server.seen) <= 8, "no more than were in flight"
    assert "SECRET" not in str(caught.value)
    assert "JUDGE_KEY" in str(caught.value)


def test_an_unknown_model_stops_at_once(store: Store, quick: Limits) -> None:
    fault = Fault(status=404, body={"error": {"message": "no model judge"}})
    with FaultServer(lambda *_: fault) as server, session(quick), pytest.raises(UserError, match="not found"):
        judge("openai/judge", server, store).annotate(make_pairs(3), seed=0)


def test_no_server_at_the_address_is_said_in_one_sentence(store: Store, quick: Limits) -> None:
    annotator = LLMAnnotator("openai/judge", "plain", base_url="http://127.0.0.1:9/v1", store=store)
    with session(quick), pytest.raises(UserError, match="is the server running"):
        annotator.annotate(make_pairs(3), seed=0)


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        LLMAnnotator("openai/gpt-6-luna", store=store).annotate(make_pairs(1), seed=0)


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("openai/judge", Fault(status=429, body={"error": {"code": "insufficient_quota", "message": "quota"}})),
        ("anthropic/judge", Fault(status=400, body={"error": {"message": "Your credit balance is too low"}})),
    ],
)
def test_a_spent_quota_pauses_and_goes_on(
    model: str, fault: Fault, pairs: pd.DataFrame, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()

    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        return fault if number >= 10 and time.monotonic() - start < 0.8 else None

    limits = Limits(shortest_wait=0.002, longest_wait=0.02, concurrency=8)
    with FaultServer(plan) as server, session(limits):
        table = judge(model, server, store).annotate(pairs, seed=0)
        assert (table["status"] == "ok").all()
        wasted = len(server.seen) - len(server.answered)
    assert wasted < 20, "while it is paused only one question at a time tries"
    assert "paused" in capsys.readouterr().err


def test_a_quota_that_does_not_come_back_stops_the_run_without_failing_rows(pairs: pd.DataFrame, store: Store) -> None:
    fault = Fault(status=402, body={"error": {"message": "payment required"}})
    limits = Limits(shortest_wait=0.001, longest_wait=0.01, quota_patience=0.2, concurrency=4)
    with FaultServer(lambda n, b, h: fault if n >= 10 else None) as server:
        with session(limits), pytest.raises(UserError, match="goes on from here"):
            judge("openai/judge", server, store).annotate(pairs, seed=0)
        assert int(store.totals()["rows"].sum()) == 10
        server.plan = None
        with session(limits) as run:
            table = judge("openai/judge", server, store).annotate(pairs, seed=0)
        assert (table["status"] == "ok").all()
        assert run.tally.cached == 10


@pytest.mark.parametrize("model", ENDPOINTS)
def test_refusals_are_a_status_with_their_text(model: str, store: Store, quick: Limits) -> None:
    with FaultServer(script="refuse") as server, session(quick):
        table = judge(model, server, store).annotate(make_pairs(4), seed=0)
    assert (table["status"] == "refused").all()
    assert table["preference"].isna().all()
    assert (table["answer"] == "I can't help with that.").all()


def test_no_key_reaches_store_table_log_or_error(
    tmp_path: Path, quick: Limits, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats the headers it got, in answers and in errors."""
    caplog.set_level("DEBUG")
    store = Store(tmp_path / "store.sqlite")

    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        echo = " ".join([headers.get("authorization", ""), headers.get("x-api-key", "")])
        statuses = [500, 429, 400, 503]
        return Fault(status=statuses[number % 4], body={"error": {"message": f"headers were {echo}"}})

    said = ""
    with FaultServer(plan) as server, session(quick):
        for model in ENDPOINTS:
            table = judge(model, server, store, key="JUDGE_KEY").annotate(make_pairs(12), seed=0)
            assert (table["status"] == "error").any()
            said += table.to_json()
        server.plan = lambda n, b, h: Fault(status=401, body={"error": {"message": f"key {h}"}})
        for model in ENDPOINTS:
            try:
                judge(model, server, store, key="JUDGE_KEY").annotate(make_pairs(2), seed=1)
            except UserError:
                import traceback

                said += traceback.format_exc()
        assert server.headers[0]["authorization"].endswith("SECRETSECRET1234567890"), "the server did get the key"
    store.close()
    said += capfd.readouterr().err + caplog.text
    stored = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert "SECRET" not in said
    assert b"SECRET" not in stored


def test_concurrency_and_rates_are_kept(store: Store) -> None:
    with FaultServer(delay=0.02) as server, session(Limits(concurrency=5)):
        judge("openai/judge", server, store).annotate(make_pairs(30), seed=0)
        assert server.most_in_flight == 5
        assert server.connections <= 5
    started = time.monotonic()
    with FaultServer() as server, session(Limits(requests_per_minute=600)):
        judge("openai/judge", server, store).annotate(make_pairs(25, start=100), seed=0)
    assert time.monotonic() - started >= 1.3  # 10 a second after a burst of a second's worth


def test_parameters_a_server_does_not_know_are_left_out_and_said(
    store: Store, quick: Limits, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        for unknown in ("logprobs", "response_format"):
            if unknown in body:
                return Fault(status=400, body={"error": {"message": f"unsupported parameter: {unknown}"}})
        return None

    with FaultServer(plan) as server, session(quick):
        for prompt in ("plain", "rubric"):
            table = judge("openai/judge", server, store, prompt=prompt).annotate(make_pairs(6), seed=0)
            assert (table["status"] == "ok").all()
    said = capsys.readouterr().err
    assert "logprobs" in said
    assert "response_format" in said


def test_a_refused_temperature_stops_because_it_would_be_another_annotator(store: Store, quick: Limits) -> None:
    body = {"error": {"message": "`temperature` is deprecated for this model.", "type": "invalid_request_error"}}
    plan: Plan = lambda n, b, h: Fault(status=400, body=body) if "temperature" in b else None  # noqa: E731
    with FaultServer(plan) as server, session(quick):
        with pytest.raises(UserError, match="temperature: null"):
            judge("anthropic/judge", server, store, temperature=1.0).annotate(make_pairs(2), seed=0)
        assert (
            judge("anthropic/judge", server, store, temperature=None).annotate(make_pairs(2), seed=0)["status"] == "ok"
        ).all()
