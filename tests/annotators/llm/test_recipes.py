"""Judges on the servers that people have: the recipes in configs/annotators, asked as these servers answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import keys, wire
from annotators.llm.backends.anthropic_server import AnthropicServer
from annotators.llm.backends.openai_server import OpenAIServer
from annotators.llm.completion import Request
from annotators.llm.feedback import LLMRater
from annotators.llm.pool import LLMPool
from annotators.llm.question import most_input
from annotators.llm.session import session
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.storage.store import Store
from tests.annotators.llm.cases import make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer, refusal
from tests.annotators.llm.recorded import RECIPES, answer

GIVES = {"vllm", "ollama", "llama_cpp", "openrouter"}
"""log-probabilities"""
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(params=[True, False], ids=["straight", "through the SDK"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LEAN", request.param)


def of_recipe(name: str, server: FaultServer, store: Store, **changed: Any) -> LLMAnnotator:
    """The judge of a recipe, at another address."""
    found = config.build(Annotator, name, Context())
    assert isinstance(found, LLMAnnotator)
    return replace(found, base_url=server.url + "/v1", key=None, store=store, **changed)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gets_verdicts_without_a_note(
    name: str, store: Store, quick: Limits, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(lambda n, body, h: answer(name, body)) as server, session(quick):
        table = of_recipe(name, server, store).annotate(make_pairs(6), seed=0)
        assert len(server.seen) == 6
    assert (table["status"] == "ok").all() and (table["preference"] == 2.0).all()
    assert table["p_first"].notna().all() == (name in GIVES)
    assert "farm:" not in capsys.readouterr().err.replace("farm: no price is known", "")


@pytest.mark.parametrize("name", ["lm_studio", "together", "gemini", "openrouter"])
def test_log_probabilities_that_do_not_come_are_said_once_and_the_text_is_read(
    name: str, store: Store, quick: Limits, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(lambda n, body, h: answer(name, body)) as server, session(quick):
        table = of_recipe(name, server, store, probabilities=True, extra=None).annotate(make_pairs(6), seed=0)
    assert (table["preference"] == 2.0).all() and table["p_first"].isna().all()
    said = capsys.readouterr().err
    assert said.count("verdicts are read from the text") == 1


def test_errors_that_are_a_list_are_understood_on_both_ways(
    both_ways: None, store: Store, quick: Limits, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of Gemini; each refused field is left out, once."""
    with FaultServer(lambda n, body, h: answer("gemini", body)) as server, session(quick):
        judge = of_recipe("gemini", server, store, probabilities=True, temperature=1.0)
        assert (judge.annotate(make_pairs(1), seed=0)["status"] == "ok").all()
        assert len(server.seen) == 4
    assert "does not take logprobs" in capsys.readouterr().err
    long = refusal("too long: 9000 tokens")
    with FaultServer(lambda *_: replace(long, body=[long.body])) as server, session(quick):
        table = of_recipe("gemini", server, store).annotate(make_pairs(1, start=9), seed=0)
    assert table["failure"][0] == "status 400: too long: 9000 tokens"


@pytest.mark.parametrize("name", ["vllm", "ollama", "llama_cpp"])
def test_a_judge_that_thinks_without_room_is_said_once_and_guesses_nothing(
    name: str, store: Store, quick: Limits, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(lambda n, body, h: answer(name, body)) as server, session(quick):
        table = of_recipe(name, server, store, extra=None, effort=None).annotate(make_pairs(4), seed=0)
    assert (table["status"] == "unparseable").all()
    assert capsys.readouterr().err.count("switch it off") == 1


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_extra_fields_are_in_the_request_and_in_the_address_of_its_answer(
    both_ways: None, provider: str, store: Store, quick: Limits
) -> None:
    with FaultServer() as server:
        url = server.url + ("/v1" if provider == "openai" else "")
        plain = LLMAnnotator(f"{provider}/judge", "plain_line", base_url=url, store=store)
        for judge, asked in ((plain, 3), (replace(plain, extra=NO_THINKING), 3), (replace(plain, extra={}), 0)):
            with session(quick) as run:
                judge.annotate(make_pairs(3), seed=0)
            assert run.tally.asked == asked
        assert [b.get("chat_template_kwargs") for b in server.seen] == [None] * 3 + [{"enable_thinking": False}] * 3
    assert plain.description() == replace(plain, extra={}).description()
    assert replace(plain, extra=NO_THINKING).description()["extra"] == NO_THINKING
    request = Request("m", "", "u", 1)
    assert "extra" not in request.plain()
    assert most_input(replace(request, extra=NO_THINKING)) > most_input(request) + 40


def test_raters_and_pools_send_them_too(store: Store, quick: Limits) -> None:
    pairs = make_pairs(2)
    with FaultServer() as server, session(quick):
        at = {"base_url": server.url + "/v1", "store": store}
        outputs = pairs.rename(columns={"output_1": "output"})
        LLMRater("openai/judge", extra=NO_THINKING, **at).rate(outputs, seed=0)
        roles, members = {"one": {"model": "openai/other"}}, {"a": {"model": "one"}}
        spec = {"class": "annotators.llm.pool.LLMPool", "models": roles, "members": members}
        pool = config.build(Annotator, {**spec, "model": "openai/judge", "extra": NO_THINKING}, Context())
        assert isinstance(pool, LLMPool)
        replace(pool, **at).annotate(pairs, seed=0)
        assert len(server.seen) == 4
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in server.seen)
    with pytest.raises(UserError, match="`extra` is for the server of a `model`"):
        config.build(Annotator, {**spec, "extra": NO_THINKING}, Context())


@pytest.mark.parametrize(
    ("model", "extra", "why"),
    [
        ("openai/m", {"temperature": 0.5}, "`temperature`, which is written by settings"),
        ("openai/m", {"reasoning_effort": "low"}, "`reasoning_effort`"),
        ("anthropic/m", {"thinking": {"type": "enabled"}}, "`thinking`"),
        ("openai/m", {"n": 5}, "`n`: it changes what is answered, by whom or at what price"),
        ("openai/m", {"models": ["other"]}, "by whom"),
        ("openai/m", {"seeds": {1, 2}}, "plain JSON"),
        ("mock/longer", NO_THINKING, "a model of mock/ gets none"),
    ],
)
def test_what_extra_must_not_set_is_refused_before_anything_is_sent(model: str, extra: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LLMAnnotator(model, extra=extra)
    with pytest.raises(ValueError, match=why):
        LLMRater(model, extra=extra)


def test_every_field_that_is_sent_is_one_that_extra_must_not_set() -> None:
    openai, anthropic = (
        OpenAIServer("m", "http://127.0.0.1:1/v1"), AnthropicServer("m", "http://127.0.0.1:1"),
    )  # fmt: skip
    sent: dict[str, set[str]] = {"openai": set(), "anthropic": set()}
    for thinking, limit in product((0, 5), ("max_tokens", "max_completion_tokens")):
        request = Request("m", "s", "u", 9, 0.5, ("1", "2"), {"type": "object"}, "low", thinking=thinking)
        openai._limit = limit
        sent["openai"] |= openai.body(request).keys()
        sent["anthropic"] |= anthropic.body(request).keys()
    assert sent == {name: set(keys.PROVIDERS[name].body) for name in sent}


def test_a_refused_field_of_extra_stops_the_run_with_its_name(store: Store, quick: Limits) -> None:
    said = refusal("Unrecognized request argument supplied: chat_template_kwargs")
    plan = lambda n, body, h: said if "chat_template_kwargs" in body else None  # noqa: E731
    with FaultServer(plan) as server, session(quick):
        judge = LLMAnnotator("openai/judge", base_url=server.url + "/v1", extra=NO_THINKING, store=store)
        with pytest.raises(UserError, match="`chat_template_kwargs` of `extra`"):
            judge.annotate(make_pairs(3), seed=0)
    # the word alone is no refusal of the field: this is one question's own failure
    odd = Fault(status=400, body={"error": {"message": "Provider returned error", "code": 400}})
    with FaultServer(lambda n, *_: odd if n == 0 else None) as server, session(quick):
        judge = LLMAnnotator("openai/judge", base_url=server.url + "/v1", extra={"provider": {}}, store=store)
        table = judge.annotate(make_pairs(3), seed=0)
    assert table["status"].value_counts().to_dict() == {"ok": 2, "error": 1}
