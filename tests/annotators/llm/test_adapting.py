"""Servers that refuse a parameter, as OpenAI, Azure, Anthropic and gateways do: each is adapted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.llm import prices
from annotators.llm import session as sessions
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import wire
from annotators.llm.backends.anthropic_server import ROOM
from annotators.llm.backends.openai_server import OpenAIServer
from annotators.llm.completion import Completion, Request
from annotators.llm.question import FLOOR, bounded, most_input
from annotators.llm.session import session
from farm.asking.limits import NO_ROOM, Limits
from farm.base.errors import UserError
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import (
    ALWAYS_THINKS,
    AZURE_FILTER,
    BELOW_MINIMUM,
    NO_SUCH_EFFORT,
    TOP_LOGPROBS,
    WANTS_COMPLETION_TOKENS,
    Fault,
    FaultServer,
    refusal,
)


@pytest.fixture(params=[True, False], ids=["straight", "through the SDK"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LEAN", request.param)


def judge(server: FaultServer, store: Store, prompt: str = "plain", **changed: Any) -> LLMAnnotator:
    return LLMAnnotator("openai/judge", prompt, base_url=server.url + "/v1", store=store, **changed)


def claude(server: FaultServer, store: Store, **changed: Any) -> LLMAnnotator:
    return LLMAnnotator("anthropic/judge", "plain_line", base_url=server.url, store=store, **changed)


def test_alternatives_that_are_refused_twice_are_left_out_after_three_requests(store: Store) -> None:
    plan = lambda n, body, h: TOP_LOGPROBS if "top_logprobs" in body else None  # noqa: E731
    with FaultServer(plan) as server, session(Limits(concurrency=1)):
        table = judge(server, store).annotate(make_pairs(5), seed=0)
        assert [body.get("top_logprobs") for body in server.seen] == [20, 5, *[None] * 5]
    assert (table["preference"] == longer(make_pairs(5))).all()


def test_many_questions_that_are_refused_at_once_adapt_once(store: Store) -> None:
    plan = lambda n, body, h: TOP_LOGPROBS if body.get("top_logprobs", 0) > 5 else None  # noqa: E731
    with FaultServer(plan, delay=0.02) as server, session(Limits(concurrency=16)):
        table = judge(server, store).annotate(make_pairs(16), seed=0)
        assert len(server.seen) <= 32
    assert table["p_first"].notna().all()


@pytest.mark.parametrize("word", ["max_tokens", "max_completion_tokens"])
def test_the_name_of_the_limit_is_adapted_both_ways_and_not_for_ever(word: str, store: Store) -> None:
    said = f"Unsupported parameter: '{word}' is not supported with this model."
    plan = lambda n, body, h: refusal(said, "unsupported_parameter", word) if word in body else None  # noqa: E731
    with FaultServer(plan) as server, session(Limits(concurrency=1)):
        assert (judge(server, store).annotate(make_pairs(3), seed=0)["status"] == "ok").all()
        assert len(server.seen) <= 4
    both = lambda n, body, h: refusal(said.replace(word, "max_tokens and max_completion_tokens"))  # noqa: E731
    with FaultServer(both) as server, session(Limits(concurrency=1)):
        table = judge(server, store).annotate(make_pairs(1, start=9), seed=0)
        assert len(server.seen) <= 3
    assert (table["status"] == "error").all()


def test_one_token_judges_ask_for_what_openai_takes(store: Store) -> None:
    def plan(number: int, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        if "max_tokens" in body:
            return WANTS_COMPLETION_TOKENS
        return BELOW_MINIMUM if body["max_completion_tokens"] < 16 else None

    with FaultServer(plan) as server, session(Limits(concurrency=1)):
        table = judge(server, store).annotate(make_pairs(3), seed=0)
        assert server.seen[-1]["max_completion_tokens"] == FLOOR == 16
        assert len(server.seen) == 4
    assert (table["preference"] == longer(make_pairs(3))).all()
    assert table["p_first"].notna().all()


def test_a_limit_that_is_too_small_under_its_other_name_is_raised(store: Store) -> None:
    below = refusal(
        "Invalid 'max_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
        "integer_below_min_value",
        "max_tokens",
    )
    with FaultServer(lambda n, body, h: below if body["max_tokens"] < 16 else None) as server, session():
        assert (judge(server, store).annotate(make_pairs(2), seed=0)["status"] == "ok").all()
        assert "max_completion_tokens" not in server.seen[-1]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://us.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
def test_where_the_limit_has_which_name(url: str, name: str) -> None:
    assert OpenAIServer("judge", url, None).body(Request("judge", "", "u", 1)).keys() >= {name}


def test_a_question_too_long_is_not_taken_for_an_unknown_parameter(store: Store, quick: Limits) -> None:
    said = "'max_tokens' is too large: 300. This model's maximum context length is 8 tokens."
    with FaultServer(lambda *_: refusal(said)) as server, session(quick):
        table = judge(server, store).annotate(make_pairs(2), seed=0)
        assert len(server.seen) == 2
    assert table["failure"].str.contains("too large").all()


def test_an_effort_that_a_model_has_not_stops_with_what_to_set(store: Store, quick: Limits) -> None:
    plan = lambda n, body, h: NO_SUCH_EFFORT if body.get("reasoning_effort") == "none" else None  # noqa: E731
    with FaultServer(plan) as server, session(quick):
        with pytest.raises(UserError, match="set `effort`") as caught:
            judge(server, store, effort="none").annotate(make_pairs(2), seed=0)
        assert (judge(server, store, effort="low").annotate(make_pairs(2), seed=0)["status"] == "ok").all()
    assert len(str(caught.value)) < 350
    unknown = refusal("Unrecognized request argument supplied: reasoning_effort", None, "reasoning_effort")
    with FaultServer(lambda n, body, h: unknown if "reasoning_effort" in body else None) as server, session(quick):
        assert (judge(server, store, effort="none").annotate(make_pairs(2), seed=0)["status"] == "ok").all()


def test_what_azures_filter_refuses_is_a_refusal(store: Store, quick: Limits) -> None:
    with FaultServer(lambda n, b, h: AZURE_FILTER if n == 0 else None) as server, session(quick) as run:
        table = judge(server, store).annotate(make_pairs(3), seed=0)
        assert len(server.seen) == 3
    assert table["status"].value_counts().to_dict() == {"ok": 2, "refused": 1}
    assert table["answer"].str.contains("filtered due to the prompt").sum() == 1
    assert run.tally.failed == 0


def test_a_model_that_thinks_by_default_is_told_not_to(store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        claude(server, store).annotate(make_pairs(1), seed=0)
        assert server.seen[0]["thinking"] == {"type": "disabled"}
        claude(server, store, thinking=500).annotate(make_pairs(1), seed=0)
        assert "thinking" not in server.seen[1]
        assert server.seen[1]["max_tokens"] == server.seen[0]["max_tokens"] + 500


def test_one_that_cannot_be_told_gets_room_and_money_is_set_aside_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0))
    plan = lambda n, body, h: ALWAYS_THINKS if "thinking" in body else None  # noqa: E731
    with FaultServer(plan) as server, session(Limits(concurrency=4)):
        table = claude(server, store).annotate(make_pairs(4), seed=0)
        assert {body["max_tokens"] for body in server.seen if "thinking" not in body} == {300 + ROOM}
    assert (table["status"] == "ok").all()
    with (
        FaultServer(plan) as server,
        session(Limits(concurrency=4, budget=0.05)),
    ):  # enough for 300 tokens, not for more
        table = claude(server, store).annotate(make_pairs(4, start=50), seed=0)
        assert not server.answered
    assert (table["failure"] == NO_ROOM).all()


def usage_of(server: FaultServer, **changed: Any) -> None:
    reply = server.reply

    def said(path: str, body: dict[str, Any]) -> dict[str, Any]:
        out = reply(path, body)
        out["usage"] |= changed
        return out

    server.reply = said  # type: ignore[method-assign]


def test_cached_and_written_input_has_prices_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0, cached=1.0))
    with FaultServer() as server, session() as run:
        usage_of(server, prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 20})
        table = judge(server, store).annotate(make_pairs(1), seed=0)
    assert table["price"][0] == pytest.approx((20 + 60 * 0.1 + 20 * 1.25) * 10e-6 + 5 * 40e-6)
    assert run.tally.input_tokens == 100
    with FaultServer() as server, session() as run:
        usage_of(server, cache_creation_input_tokens=100, cache_read_input_tokens=200)
        table = claude(server, store).annotate(make_pairs(1), seed=0)
    assert run.tally.input_tokens == 400
    assert table["price"][0] == pytest.approx((100 + 200 * 0.1 + 100 * 1.25) * 10e-6 + 5 * 40e-6)


def test_cached_input_whose_price_is_not_known_costs_as_much_as_other_input() -> None:
    said = Completion("1", input_tokens=1000, cached_tokens=600)
    assert prices.Price(10.0, 40.0).of(said) == prices.Price(10.0, 40.0).of(Completion("1", input_tokens=1000))


def test_what_the_models_that_ship_charge_for_a_cache() -> None:
    terra = prices.price("openai", "gpt-6.1-terra")
    assert terra is not None
    said = Completion("1", input_tokens=1000, cached_tokens=1000)
    assert terra.of(said) == pytest.approx(1000 * 0.05e-6)
    assert terra.at_most(1000, 0) == pytest.approx(1000 * 1.25e-6)


counts = st.integers(0, 2**45)


@settings(max_examples=60, deadline=None)
@given(counts, counts, counts, counts, st.integers(1, 5000))
def test_no_usage_costs_less_than_nothing_or_more_than_the_worst(i: int, o: int, c: int, w: int, most: int) -> None:
    request = Request("judge", "system", "question", most)
    said = bounded(Completion("", None, None, i, o, cached_tokens=c, written_tokens=w), request, most)
    price = prices.Price(3.0, 7.0)
    assert 0 <= price.of(said) <= price.at_most(most_input(request), most) + 1e-12
    assert said.cached_tokens + said.written_tokens <= said.input_tokens


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "price", lambda provider, name, url: prices.Price(10.0, 40.0))


def test_a_budget_is_for_a_run_however_often_it_is_called(priced: None, store: Store) -> None:
    with FaultServer() as server:
        for _ in range(3):
            with session(Limits(budget=0.03, concurrency=4)) as run:
                judge(server, store).annotate(make_pairs(60), seed=0)
            assert run.ledger.spent <= 0.03
        assert len(server.answered) * 0.0012 <= 0.03


def test_negative_usage_adds_nothing_to_a_budget(priced: None, store: Store) -> None:
    with FaultServer() as server, session(Limits(budget=0.03, concurrency=4)) as run:
        usage_of(server, prompt_tokens=-1_000_000, completion_tokens=-1_000_000)
        judge(server, store).annotate(make_pairs(60), seed=0)
        assert run.tally.cost == 0
    with FaultServer() as server, session(Limits(budget=0.03, concurrency=4)) as run:
        usage_of(server, prompt_tokens=10**12, completion_tokens=10**12)
        judge(server, store).annotate(make_pairs(60, start=100), seed=0)
        assert 0 < run.tally.cost <= 0.03


def test_a_command_with_a_budget_counts_all_its_questions_before_it_asks(
    priced: None, tmp_path: Path, store: Store
) -> None:
    """The second half was paid for earlier, and stands behind the first in the table."""
    from annotators.face.options import AnnotateOptions
    from annotators.runs import annotation_run
    from farm.tables.formats import write_table

    write_table(make_pairs(40), tmp_path / "pairs.json")
    with FaultServer() as server:
        with session():
            judge(server, store).annotate(make_pairs(20, start=20), seed=0)
        options = AnnotateOptions(order="given", budget=20 * 0.0012 + 0.001)
        run = annotation_run.prepare(make_pairs(40), judge(server, store), tmp_path / "out.json", options)
        annotation_run.CHUNK, before = 10, annotation_run.CHUNK
        try:
            run.go()
        finally:
            annotation_run.CHUNK = before
        assert len(server.answered) == 20, "nothing is left for the first half"
