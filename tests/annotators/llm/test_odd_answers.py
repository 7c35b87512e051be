"""Answers that no model gives, and waits that no server means: the run goes on, and nothing is asked for ever."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from annotators.llm import verdicts
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import lean_http, wire
from annotators.llm.backends.http_failures import retry_after
from annotators.llm.completion import redacted
from annotators.llm.question import KIND
from annotators.llm.session import session
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.storage.store import Entry, Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer

ENDPOINTS = ["openai/judge", "anthropic/judge"]


@pytest.fixture(params=[True, False], ids=["straight", "through the SDK"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LEAN", request.param)


def judge(model: str, server: FaultServer, store: Store, prompt: str = "plain_line") -> LLMAnnotator:
    return LLMAnnotator(model, prompt, base_url=server.url + ("/v1" if "openai" in model else ""), store=store)


def once(server: FaultServer, model: str, change: Any) -> Any:
    """A plan that changes the first answer."""

    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        if number:
            return None
        reply = server.reply("/messages" if "anthropic" in model else "/chat/completions", body)
        changed = change(reply)
        return Fault(raw=changed if isinstance(changed, bytes) else json.dumps(reply).encode())

    return plan


def usage(name: str, value: Any) -> Any:
    def change(reply: dict[str, Any]) -> None:
        given = reply["usage"]
        given["output_tokens" if name == "output" and "output_tokens" in given else f"{name}_tokens"] = value
        for known in ("completion_tokens", "output_tokens"):
            if known in given:
                given[known] = value

    return change


def surrogate(reply: dict[str, Any]) -> None:
    if "choices" in reply:
        reply["choices"][0]["message"]["content"] += " \ud800"
    else:
        reply["content"][0]["text"] += " \ud800"


@pytest.mark.parametrize("model", ENDPOINTS)
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30, 10**30, 10**400, -5, "many", None])
def test_odd_usage_neither_stops_a_run_nor_is_believed(model: str, value: Any, store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        server.plan = once(server, model, usage("output", value))
        table = judge(model, server, store).annotate(make_pairs(3), seed=0)
    assert (table["status"] == "ok").all()
    assert table["output_tokens"].between(0, 300).all()


@pytest.mark.parametrize("model", ENDPOINTS)
def test_half_a_character_is_kept_as_a_sign_for_it(model: str, store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        server.plan = once(server, model, surrogate)
        pairs = make_pairs(3)
        table = judge(model, server, store).annotate(pairs, seed=0)
        again = judge(model, server, store).annotate(pairs, seed=0)
        assert len(server.seen) == 3
    assert (table["preference"] == longer(pairs)).all()
    assert table["answer"].str.contains("?", regex=False).sum() == 1
    assert (again["answer"] == table["answer"]).all()


@pytest.mark.parametrize("model", ENDPOINTS)
@pytest.mark.parametrize("what", ["deep", "large", "digits"])
def test_what_is_no_answer_is_kept_as_unreadable_and_the_run_goes_on(
    model: str, what: str, store: Store, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_http, "LARGEST", 500_000)
    monkeypatch.setattr(wire, "LARGEST", 500_000)
    raw = {
        "deep": b'{"choices":' + b"[" * 200_000,
        "large": b'{"choices": "' + b"x" * 600_000 + b'"}',
        "digits": b'{"created": ' + b"9" * 5_000 + b"}",
    }[what]
    why = {"deep": "nested", "large": "bytes", "digits": "thousands of digits"}[what]
    with FaultServer() as server, session(quick):
        server.plan = once(server, model, lambda reply: raw)
        table = judge(model, server, store).annotate(make_pairs(4), seed=0)
        assert table["status"].value_counts().to_dict() == {"ok": 3, "unparseable": 1}
        assert table["answer"].str.contains(why).sum() == 1
        judge(model, server, store).annotate(make_pairs(4), seed=0)
        assert len(server.seen) == 4, "it is kept, and not asked for again"


def test_a_large_answer_is_not_read_to_its_end(store: Store, quick: Limits) -> None:
    raw = b'{"choices": "' + b"x" * 60_000_000 + b'"}'

    class Large(FaultServer):
        async def _fail(self, fault: Fault, path: str, body: dict[str, Any], writer: Any) -> bool:
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
            writer.write(head.encode())
            for start in range(0, len(raw), 1_000_000):
                writer.write(raw[start : start + 1_000_000])
                await writer.drain()
            return False

    with Large(lambda *_: Fault(raw=raw)) as server, session(Limits(concurrency=2)):
        tracemalloc.start()
        table = judge("openai/judge", server, store).annotate(make_pairs(2), seed=0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (table["status"] == "unparseable").all()
    assert peak < 40_000_000


@pytest.mark.parametrize(
    "value",
    [{"text": "Verdict: 1", "tone": "kind"}, {"txt": "Verdict: 1"}, {"text": ["Verdict: 1"]}, ["Verdict: 1"], 1],
)
def test_an_answer_that_another_version_stored_counts_as_missing_once(value: Any, store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        pairs, asked = make_pairs(2), judge("openai/judge", server, store)
        before = asked.annotate(pairs, seed=0)
        rows = store._connection().execute("SELECT key FROM rows").fetchall()
        store._connection().execute("DELETE FROM rows")
        store.put(KIND, [Entry(key, value) for (key,) in rows])
        again = asked.annotate(pairs, seed=0)
        assert len(server.seen) == 4 and (again["answer"] == before["answer"]).all()
        assert asked.annotate(pairs, seed=0)["cached"].all() and len(server.seen) == 4


@pytest.mark.parametrize("value", ["0", "-3", "nan", "inf", "NaN", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_no_wait_is_none_that_was_asked_for(value: str) -> None:
    assert retry_after({"retry-after": value}) is None
    assert retry_after({"retry-after-ms": value}) is None
    assert retry_after({"retry-after-ms": value, "retry-after": "7"}) == 7


@pytest.mark.parametrize("value", ["0", "nan", "0.0001"])
def test_a_server_that_asks_for_no_wait_is_asked_as_often_as_any_other(value: str, store: Store) -> None:
    limits = Limits(shortest_wait=0.01, longest_wait=0.05, concurrency=2, attempts=4)
    with FaultServer(lambda *_: Fault(status=429, headers={"retry-after": value})) as server, session(limits):
        table = judge("openai/judge", server, store).annotate(make_pairs(2), seed=0)
        assert len(server.seen) == 2 * 4
    assert (table["status"] == "error").all()


def test_a_wait_beyond_all_patience_ends_the_run_and_a_long_one_is_said(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    forever = Fault(status=429, headers={"retry-after": "1e9"})
    too_long = pytest.raises(UserError, match=r"asks to wait 1,000,000,000 seconds")
    with FaultServer(lambda *_: forever) as server, session(Limits()), too_long:
        judge("openai/judge", server, store).annotate(make_pairs(2), seed=0)
    started = time.monotonic()
    plan = lambda n, b, h: Fault(status=429, headers={"retry-after": "0.2"}) if n == 0 else None  # noqa: E731
    with FaultServer(plan) as server, session(Limits(shortest_wait=0.01, longest_wait=0.1)):
        judge("openai/judge", server, store).annotate(make_pairs(1, start=5), seed=0)
    assert time.monotonic() - started >= 0.2
    assert "paused" in capsys.readouterr().err


def test_what_servers_say_is_one_line_that_a_terminal_does_not_obey() -> None:
    assert redacted("no\x1b[2J\x07 such\nmodel \ud800") == "no [2J such model ?"


@pytest.mark.parametrize("value", [1000.0, float("inf"), float("nan"), 10**400, "-0.1x", None])
def test_odd_log_probabilities_do_not_stop_a_run(value: Any, store: Store, quick: Limits) -> None:
    def change(reply: dict[str, Any]) -> None:
        first = reply["choices"][0]["logprobs"]["content"][0]
        first["logprob"] = value
        for other in first["top_logprobs"]:
            other["logprob"] = value

    with FaultServer() as server, session(quick):
        server.plan = once(server, "openai/judge", change)
        table = judge("openai/judge", server, store, "plain").annotate(make_pairs(3), seed=0)
    assert (table["status"] == "ok").all()


def test_numbers_of_thousands_of_digits_are_no_verdict() -> None:
    many = "1" * 5000
    assert verdicts.pairwise(f"Verdict {many}: 1", "line", 1) == [None]
    assert verdicts.ranking(f"Ranking: {many} > 1 > 2", 2) is None


def test_what_is_nested_too_deep_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    decode = json.JSONDecoder.raw_decode
    monkeypatch.setattr(json.JSONDecoder, "raw_decode", lambda *a: tried.append(1) or decode(*a))
    assert verdicts.json_objects('{"a": 1} ' + '{"":' * 100_000) == [{"a": 1}]
    assert len(tried) == 2
