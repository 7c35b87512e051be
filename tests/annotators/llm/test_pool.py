"""The pool of thirteen: who it is, one model for all, and its training form."""

from __future__ import annotations

import pytest

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.pool import LLMPool
from annotators.llm.prices import Price, price
from annotators.llm.session import session
from farm.asking.limits import Limits
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.storage.store import Store
from tests.annotators.llm.cases import longer, make_pairs
from tests.annotators.llm.fault_server import FaultServer


def built(store: Store, **settings: object) -> LLMPool:
    found = config.build(Annotator, {"use": "alpaca_farm_pool", **settings}, Context(store=store))
    assert isinstance(found, LLMPool)
    return found


def test_thirteen_annotators_of_three_models_that_all_differ(store: Store) -> None:
    members = built(store).pool.annotators
    assert len(members) == 13
    assert all(isinstance(m, LLMAnnotator) for m in members)
    models = [m.model for m in members if isinstance(m, LLMAnnotator)]
    assert sorted(models.count(m) for m in set(models)) == [4, 4, 5]
    settings = {(m.model, m.prompt, m.batch, m.persona) for m in members if isinstance(m, LLMAnnotator)}
    assert len(settings) == 13


def test_every_model_that_ships_has_a_price(store: Store) -> None:
    specs = ["openai_greedy", "anthropic_greedy"]
    judges = [config.build(Annotator, s, Context(store=store)) for s in specs] + built(store).pool.annotators
    for judge in judges:
        assert isinstance(judge, LLMAnnotator)
        provider, _, name = judge.model.partition("/")
        known = price(provider, name, "https://api")
        assert known is not None
        assert known.output > known.input > 0


def test_one_local_model_plays_all_roles(store: Store) -> None:
    pairs = make_pairs(260)
    with FaultServer() as server:
        pool = built(store, model="openai/local", base_url=server.url + "/v1")
        table = pool.annotate(pairs, seed=0)
        assert {body["model"] for body in server.seen} == {"local"}
        assert len(server.seen) < 200, "several pairs share a prompt"
    assert table["status"].value_counts().to_dict() == {"ok": 260}
    assert table["annotator"].nunique() == 13
    assert (table["price"] == 0).all()
    hot = table["p_first"].notna()  # those with probabilities draw at temperature 1
    assert (table["preference"] == longer(pairs))[~hot].all()


def test_training_is_the_pool_with_flips_that_cost_no_call(store: Store) -> None:
    spec = {"use": "alpaca_farm_training", "annotator": {"use": "alpaca_farm_pool", "model": "mock/longer"}}
    pairs = make_pairs(1000)
    with session() as run:
        table = config.build(Annotator, spec, Context(store=store)).annotate(pairs, seed=0)
    coins = table["coin"].astype(bool)
    assert table["annotator"].nunique() == 13  # whose answers the coins took the place of, too
    assert abs(coins.mean() - 0.5) < 0.06
    assert abs((table["preference"] == longer(pairs)).mean() - 0.75) < 0.06
    assert run.tally.questions < 500


def test_a_dry_run_of_the_pool_says_what_it_would_cost(store: Store) -> None:
    with session(Limits(dry_run=True)) as run:
        built(store).annotate(make_pairs(100), seed=0)
    assert run.tally.cost > 0
    assert len(run.tally.models) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "http://x"}, "needs a `model`"),
        ({"members": {"a": {"model": "stong"}}}, "did you mean `strong`"),
        ({"members": {"a": {"model": "strong", "promt": "plain"}}}, r"unknown key `members\.a\.promt`.*`prompt`"),
        ({"models": {"strong": {"modle": "mock/longer"}}}, r"unknown key `models\.strong\.modle`.*`model`"),
        ({"models": {"strong": {}}}, r"`models\.strong\.model` is missing"),
        ({"models": {"strong": {"model": "mock/longer", "thinking": "much"}}}, r"`models\.strong\.thinking` = 'much'"),
        ({"key": "JUDGE_KEY"}, "name the server"),
        ({"members": {}}, "at least one member"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str, store: Store) -> None:
    with pytest.raises(UserError, match=message):
        built(store, **settings)


def test_prices_cover_dated_versions_and_nothing_else(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("genai_prices")
    known = price("openai", "gpt-5.4", "https://api.openai.com/v1")
    assert known is not None and known[:2] == (2.5, 15) and known == price("openai", "gpt-5.4-2026-03-05")
    pro = price("openai", "gpt-5.4-pro")
    assert pro is None or pro.input > 5 * known.input, "never the price of what its name begins with"
    assert price("openai", "gpt-5.4-own-copy") is None
    gemini = price("openai", "gemini-3.5-flash", "https://generativelanguage.googleapis.com/v1beta/openai")
    assert gemini is not None and gemini.input > 0, "as the server at this address sells it"
    assert price("openai", "gemini-3.5-flash", "https://api.openai.com/v1") is None
    assert price("openai", "anything", "http://127.0.0.1:8000/v1") == Price(0, 0)
    assert price("openai", "anything", "http://192.168.1.4/v1") == Price(0, 0)
    file = tmp_path / "mine.yaml"  # type: ignore[operator]
    file.write_text("models: {openai/gpt-5.4: {input: 1, output: 2}, openai/own: {input: 3, output: 4}}")
    monkeypatch.setenv("FARM_PRICES", str(file))
    assert price("openai", "gpt-5.4") == Price(1, 2)
    assert price("openai", "own") == Price(3, 4)
    gateway = "http://192.168.1.4/v1"  # it charges what its owner's file says, and other models are the owner's
    assert price("openai", "own", gateway) == Price(3, 4) and price("openai", "another", gateway) == Price(0, 0)
    file.write_text("models: {a/b: {input: -1, output: 2}}")
    monkeypatch.setenv("FARM_PRICES", str(file) + ".")
    with pytest.raises(UserError, match="no such file"):
        price("openai", "own")
