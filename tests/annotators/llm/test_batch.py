"""Provider batches against loopback fakes of both APIs: submit, stop, go on, collect, fail and submit again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from annotators.llm import batch, prices
from annotators.llm import session as sessions
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import connect
from annotators.llm.session import session
from farm.asking.limits import NO_ROOM, Limits
from farm.base.errors import UserError
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import QUEUE_FULL, FaultServer

STEP = Limits(batches=True)


class Provider:
    """Both providers' batch endpoints. ``ended`` says whether batches have ended; ``spoil`` fails single questions."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.marks: dict[str, Any] = {}
        self.ended = False
        self.queue: int | None = None
        """input tokens that a batch may have; more and it fails"""
        self.refuse: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda body: None
        """the error of a line of 400"""
        self.expired: set[str] = set()
        """batches whose results are gone"""
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
            if name in self.expired:
                return 404, {"error": {"message": f"No such File object: {kind}:{name}", "code": None}}
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
        if self.full(name):
            data = [{**QUEUE_FULL, "message": QUEUE_FULL["message"].format(self.queue)}]
            out |= {"status": "failed", "errors": {"object": "list", "data": data}}
        elif self.ended:
            out |= {"output_file_id": f"good:{name}", "error_file_id": f"bad:{name}"}
        return out

    def full(self, name: str) -> bool:
        size = sum(len(str(line["body"]["messages"])) // 4 for line in self.batches[name])
        return self.queue is not None and size > self.queue

    def lines(self, name: str, good: bool) -> str:
        out = []
        for number, line in enumerate(self.batches[name]):
            refused = self.refuse(line["body"])
            if refused:
                if not good:
                    response = {"status_code": 400, "request_id": "r", "body": {"error": refused}}
                    line = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
                    out.append(json.dumps(line))
                continue
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
        place = f"{self.server.url}/v1/messages/batches/{name}/results"
        return {
            "id": name, "type": "message_batch", "created_at": made,
            "expires_at": made, "processing_status": "ended" if self.ended else "in_progress",
            "request_counts": counts, "results_url": None if name in self.expired else place,
        }  # fmt: skip

    def results(self, name: str) -> str:
        out = []
        for number, entry in enumerate(self.batches[name]):
            spoilt = self.spoil(number)
            if spoilt == "lost":
                result: dict[str, Any] = {"type": "expired"}
            elif spoilt or self.refuse(entry["params"]):
                refused = {"type": "invalid_request_error", **(self.refuse(entry["params"]) or {})}
                error = {"type": "api_error", "message": spoilt} if spoilt else refused
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


def test_submit_stop_go_on_and_collect_at_half_price(provider: Any, store: Store) -> None:
    pairs = make_pairs(30)
    with session(STEP):
        first = judge(provider, store).annotate(pairs, seed=0)
    assert (first["status"] == "unobserved").all()
    assert "which runs" in first["failure"][0]
    with session(STEP):  # another process, later; with more pairs
        judge(provider, store).annotate(make_pairs(40), seed=0)
    assert [len(b) for b in provider.batches.values()] == [30, 10], "nothing is submitted twice"
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


def test_an_intention_that_never_reached_the_provider_is_submitted(
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


def test_what_fails_in_a_batch_is_an_error_and_is_submitted_again(provider: Any, store: Store) -> None:
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


def test_the_budget_bounds_what_is_submitted(provider: Any, store: Store) -> None:
    with session(Limits(batches=True, budget=0.03)):
        table = judge(provider, store).annotate(make_pairs(200), seed=0)
    handed = sum(map(len, provider.batches.values()))
    assert 0 < handed < 20
    assert (table["failure"] == NO_ROOM).sum() == 200 - handed


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


def test_a_full_queue_costs_no_attempt_and_is_not_overfilled_again(store: Store, capsys: Any) -> None:
    fake = Provider()
    with FaultServer(handler=fake.handle) as server:
        fake.server, fake.kind, fake.queue = server, "openai", 2_000  # type: ignore[attr-defined]
        with session(STEP):
            judge(fake, store).annotate(make_pairs(40), seed=0)
        for _ in range(5):  # as often as one likes
            with session(STEP):
                table = judge(fake, store).annotate(make_pairs(40), seed=0)
            assert (table["status"] == "unobserved").all()
        assert table["failure"].str.contains("queue is full").any()
        sizes = [len(b) for b in fake.batches.values()]
        assert sizes[0] == 40 and len(sizes) == 2, "the rest waits while a batch is in the queue"
        assert "token_limit_exceeded: Enqueued token limit reached" in capsys.readouterr().err
        fake.ended = True
        for _ in range(12):
            with session(STEP):
                table = judge(fake, store).annotate(make_pairs(40), seed=0)
        assert (table["status"] == "ok").all()


def test_why_a_batch_failed_is_in_its_rows(store: Store) -> None:
    fake = Provider()

    def openai(name: str) -> dict[str, Any]:
        said = {"code": "model_not_found", "message": "The model judge does not exist.", "line": 1, "param": None}
        return {**Provider.openai(fake, name), "status": "failed", "errors": {"object": "list", "data": [said]}}

    fake.openai = openai  # type: ignore[method-assign]
    with FaultServer(handler=fake.handle) as server:
        fake.server, fake.kind = server, "openai"  # type: ignore[attr-defined]
        for _ in range(2):
            with session(STEP):
                table = judge(fake, store).annotate(make_pairs(2), seed=0)
    assert table["failure"].str.contains("model_not_found: The model judge does not exist").all()


def test_parameters_are_adapted_from_the_lines_that_were_refused(provider: Any, store: Store) -> None:
    """Each command is a process of its own, which must not forget what an earlier one left out."""

    def refuse(body: dict[str, Any]) -> dict[str, Any] | None:
        for name in ("top_logprobs", "seed"):
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return {"message": message, "code": "unsupported_parameter", "param": name}
        message = '"thinking.type.disabled" is not supported for this model.'
        return {"message": message} if "thinking" in body else None

    provider.refuse, provider.ended = refuse, True
    hot = 1.0 if provider.kind == "openai" else 0.0
    for _ in range(6):
        with session(STEP):
            table = replace(judge(provider, store), temperature=hot).annotate(make_pairs(5), seed=0)
    assert (table["status"] == "ok").all()
    assert len(provider.batches) == (4 if provider.kind == "openai" else 2)


def test_results_that_have_expired_are_submitted_again(provider: Any, store: Store) -> None:
    with session(STEP):
        judge(provider, store).annotate(make_pairs(5), seed=0)
    provider.ended, provider.expired = True, set(provider.batches)
    with session(STEP):
        table = judge(provider, store).annotate(make_pairs(5), seed=0)
    assert (table["status"] == "unobserved").all() and len(provider.batches) == 2
    with session(STEP):
        table = judge(provider, store).annotate(make_pairs(5), seed=0)
    assert (table["status"] == "ok").all()


def test_a_line_of_results_that_nobody_can_read_costs_its_own_row(provider: Any, store: Store) -> None:
    for name in ("lines", "results"):
        plain = getattr(provider, name)
        spoilt = lambda *a, plain=plain: "[" * 200_000 + "\n" + "\n".join(plain(*a).splitlines()[1:])  # noqa: E731
        setattr(provider, name, spoilt)
    provider.ended = True
    for _ in range(2):
        with session(STEP):
            table = judge(provider, store).annotate(make_pairs(5), seed=0)
    assert table["status"].value_counts().to_dict() == {"ok": 4, "error": 1}


def test_batches_are_split_by_size_and_number(provider: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LARGEST", 10_000)
    with session(STEP):
        judge(provider, store).annotate(make_pairs(30), seed=0)
    sizes = [len(json.dumps(b)) for b in provider.batches.values()]
    assert len(sizes) > 2 and max(sizes) <= 10_000
    assert sum(len(b) for b in provider.batches.values()) == 30


def test_a_mock_takes_no_batches(store: Store) -> None:
    with session(STEP), pytest.raises(UserError, match="takes no batches"):
        LLMAnnotator("mock/longer", store=store).annotate(make_pairs(2), seed=0)


def test_an_answer_of_a_batch_is_counted_once_in_the_budget(provider: Any, store: Store) -> None:
    provider.ended = True
    with session(STEP):
        judge(provider, store).annotate(make_pairs(5), seed=0)
    with session(Limits(batches=True, budget=1.0)) as run:
        first, again = (judge(provider, store).annotate(make_pairs(5), seed=0) for _ in range(2))
    assert again["cached"].all()
    assert run.ledger.spent == pytest.approx(first["price"].sum()) and run.ledger.spent > 0


@pytest.mark.parametrize("call", ["submit", "find", "collect"])
def test_a_server_that_has_no_batches_is_one_sentence(provider: Any, call: str) -> None:
    provider.server.handler = lambda *_: (404, "{}")

    async def ask() -> None:
        backend: Any = connect(provider.kind, "judge", provider.server.url)
        given = {"submit": ({}, "mark"), "find": ("mark", 0.0, 1), "collect": ("batch",)}[call]
        await getattr(backend, call)(*given)

    with pytest.raises(UserError, match="takes no batches"):
        asyncio.run(ask())
