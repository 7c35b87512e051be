"""Provider batches against loopback fakes of both APIs: hand in, stop, go on, collect, fail and hand in again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from annotators.llm import prices
from annotators.llm import session as sessions
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.limits import Limits
from annotators.llm.session import session
from farm.errors import UserError
from farm.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import FaultServer

STEP = Limits(batches=True)


class Provider:
    """Both providers' batch endpoints. ``ended`` says whether batches have ended; ``spoil`` fails single questions."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.marks: dict[str, Any] = {}
        self.ended = False
        self.spoil: Callable[[int], str | None] = lambda number: None
        self.server: FaultServer

    def handle(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        if path == "/v1/files":
            name = f"file-{len(self.files)}"
            lines = [line for line in body["raw"].splitlines() if line.startswith("{")]
            self.files[name] = "\n".join(lines)
            return 200, {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "q", "purpose": "batch"}
        if path.partition("?")[0] in ("/v1/batches", "/v1/messages/batches") and method == "GET":
            tell = self.openai if "messages" not in path else self.anthropic
            data = [tell(name) for name in reversed(self.batches)]
            return 200, {"object": "list", "data": data, "has_more": False, "first_id": None, "last_id": None}
        if path == "/v1/batches":
            name = f"batch-{len(self.batches)}"
            self.marks[name] = body.get("metadata")
            self.batches[name] = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
            return 200, self.openai(name)
        if path.startswith("/v1/batches/"):
            return 200, self.openai(path.rpartition("/")[2])
        if path.startswith("/v1/files/"):
            kind, _, name = path.split("/")[3].partition(":")
            return 200, self.lines(name, kind == "good").encode()
        if path == "/v1/messages/batches":
            name = f"msgbatch_{len(self.batches)}"
            self.batches[name] = body["requests"]
            return 200, self.anthropic(name)
        if path.startswith("/v1/messages/batches/") and path.endswith("/results"):
            return 200, self.results(path.split("/")[4]).encode()
        if path.startswith("/v1/messages/batches/"):
            return 200, self.anthropic(path.split("/")[4])
        return None

    def openai(self, name: str) -> dict[str, Any]:
        out: dict[str, Any] = {
            "id": name, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "created_at": 1, "metadata": self.marks.get(name), "input_file_id": "f",
            "status": "completed" if self.ended else "in_progress",
        }  # fmt: skip
        if self.ended:
            out |= {"output_file_id": f"good:{name}", "error_file_id": f"bad:{name}"}
        return out

    def lines(self, name: str, good: bool) -> str:
        out = []
        for number, line in enumerate(self.batches[name]):
            spoilt = self.spoil(number)
            if bool(spoilt) == good or spoilt == "lost":
                continue
            body = self.server.reply(line["url"], line["body"]) if good else {"error": {"message": spoilt}}
            response = {"status_code": 200 if good else 500, "request_id": "r", "body": body}
            out.append(json.dumps({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}))
        return "\n".join(reversed(out))

    def anthropic(self, name: str) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if self.ended else "processing"] = len(self.batches[name])
        made = datetime.now(UTC).isoformat()
        return {
            "id": name, "type": "message_batch", "created_at": made,
            "expires_at": made, "processing_status": "ended" if self.ended else "in_progress",
            "request_counts": counts, "results_url": f"{self.server.url}/v1/messages/batches/{name}/results",
        }  # fmt: skip

    def results(self, name: str) -> str:
        out = []
        for number, entry in enumerate(self.batches[name]):
            spoilt = self.spoil(number)
            if spoilt == "lost":
                result: dict[str, Any] = {"type": "expired"}
            elif spoilt:
                error = {"type": "api_error", "message": spoilt}
                result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": "r"}}
            else:
                message = self.server.reply("/v1/messages", entry["params"])
                result = {"type": "succeeded", "message": message}
            out.append(json.dumps({"custom_id": entry["custom_id"], "result": result}))
        return "\n".join(reversed(out))


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> Any:
    fake = Provider()
    with FaultServer(handler=fake.handle) as server:
        fake.server = server
        fake.kind = request.param  # type: ignore[attr-defined]
        yield fake


def judge(provider: Any, store: Store) -> LLMAnnotator:
    base = provider.server.url + ("/v1" if provider.kind == "openai" else "")
    return LLMAnnotator(f"{provider.kind}/judge", "plain", base_url=base, store=store)


@pytest.fixture(autouse=True)
def _priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0))


def test_hand_in_stop_go_on_and_collect_at_half_price(provider: Any, store: Store) -> None:
    pairs = make_pairs(30)
    with session(STEP):
        first = judge(provider, store).annotate(pairs, seed=0)
    assert (first["status"] == "unobserved").all()
    assert "which runs" in first["failure"][0]
    with session(STEP):  # another process, later; with more pairs
        judge(provider, store).annotate(make_pairs(40), seed=0)
    assert [len(b) for b in provider.batches.values()] == [30, 10], "nothing is handed in twice"
    provider.ended = True
    with session(STEP) as run:
        table = judge(provider, store).annotate(pairs, seed=0)
    assert (table["status"] == "ok").all()
    assert (table["preference"] == longer(pairs)).all()
    said = 5 if provider.kind == "openai" else 1  # of 5, where no more than one was asked for
    assert run.tally.cost == pytest.approx(30 * 0.5 * (100 * 10e-6 + said * 40e-6))
    with session() as later:  # a run without batches finds the answers too
        again = judge(provider, store).annotate(pairs, seed=0)
    assert later.tally.asked == 0
    assert table["price"].sum() == pytest.approx(again["price"].sum()) == pytest.approx(run.tally.cost)
    assert not provider.server.answered, "no question was asked directly"


def test_a_batch_whose_id_was_lost_is_taken_over(provider: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the provider's reply and the commit: the next run finds the batch and pays for none twice."""
    put = Store.put

    def killed(self: Store, kind: str, entries: Any) -> int:
        if kind == "llm batch":
            raise RuntimeError("killed")
        return put(self, kind, entries)

    pairs = make_pairs(12)
    monkeypatch.setattr(Store, "put", killed)
    with pytest.raises(RuntimeError, match="killed"), session(STEP):
        judge(provider, store).annotate(pairs, seed=0)
    monkeypatch.setattr(Store, "put", put)
    with session(STEP):  # with more pairs than before
        table = judge(provider, store).annotate(make_pairs(15), seed=0)
    assert [len(b) for b in provider.batches.values()] == [12, 3]
    assert table["failure"].str.contains("which runs").all()
    provider.ended = True
    with session(STEP):
        table = judge(provider, store).annotate(make_pairs(15), seed=0)
    assert (table["status"] == "ok").all() and len(provider.batches) == 2


def test_an_intention_that_never_reached_the_provider_is_handed_in(
    provider: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def killed(self: Store, kind: str, entries: Any) -> int:
        put(self, kind, entries)
        if kind == "llm batch intended":
            raise RuntimeError("killed")
        return 0

    monkeypatch.setattr(Store, "put", killed)
    with pytest.raises(RuntimeError, match="killed"), session(STEP):
        judge(provider, store).annotate(make_pairs(6), seed=0)
    monkeypatch.setattr(Store, "put", put)
    assert not provider.batches
    with session(STEP):
        judge(provider, store).annotate(make_pairs(6), seed=0)
    assert [len(b) for b in provider.batches.values()] == [6]


def test_probabilities_come_through_a_batch(provider: Any, store: Store) -> None:
    provider.ended = True
    for _ in range(2):
        with session(STEP):
            table = judge(provider, store).annotate(make_pairs(4), seed=0)
    assert table["p_first"].notna().all() == (provider.kind == "openai")


def test_what_fails_in_a_batch_is_an_error_and_is_handed_in_again(provider: Any, store: Store) -> None:
    pairs = make_pairs(10)
    provider.ended = True
    provider.spoil = lambda number: {2: "overloaded", 5: "lost"}.get(number)
    with session(STEP):
        judge(provider, store).annotate(pairs, seed=0)
    with session(STEP):
        table = judge(provider, store).annotate(pairs, seed=0)
    assert table["status"].value_counts().to_dict() == {"ok": 8, "error": 2}
    assert table["failure"].str.contains("overloaded").sum() == 1
    provider.spoil = lambda number: None
    for _ in range(2):
        with session(STEP):
            table = judge(provider, store).annotate(pairs, seed=0)
    assert (table["status"] == "ok").all()
    assert [len(b) for b in provider.batches.values()] == [10, 2]


def test_a_question_that_always_fails_is_given_up(provider: Any, store: Store) -> None:
    provider.ended = True
    provider.spoil = lambda number: "no"
    for _ in range(9):
        with session(STEP):
            table = judge(provider, store).annotate(make_pairs(1), seed=0)
    assert table["status"].tolist() == ["error"]
    assert len(provider.batches) == 3


def test_the_budget_bounds_what_is_handed_in(provider: Any, store: Store) -> None:
    with session(Limits(batches=True, budget=0.03)):
        table = judge(provider, store).annotate(make_pairs(200), seed=0)
    handed = sum(map(len, provider.batches.values()))
    assert 0 < handed < 20
    assert (table["failure"] == "the budget is spent").sum() == 200 - handed


def test_waiting_for_a_batch(provider: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    before = provider.handle

    def soon(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        calls.append(path)
        provider.ended = len(calls) > 5
        return before(method, path, body)

    provider.server.handler = soon
    with session(Limits(batches=True, batch_patience=20, longest_wait=0.02)):
        table = judge(provider, store).annotate(make_pairs(5), seed=0)
    assert (table["status"] == "ok").all()


def test_a_mock_takes_no_batches(store: Store) -> None:
    with session(STEP), pytest.raises(UserError, match="takes no batches"):
        LLMAnnotator("mock/longer", store=store).annotate(make_pairs(2), seed=0)
