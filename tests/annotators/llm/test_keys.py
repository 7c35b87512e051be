"""Which key goes to which server, and what else goes nowhere."""

from __future__ import annotations

import dataclasses

import pytest

from annotators.llm import backends
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.backends import wire
from annotators.llm.completion import redacted
from annotators.llm.feedback import LLMRater
from annotators.llm.session import session
from farm.asking.givers import description
from farm.asking.limits import Limits
from farm.base import addresses
from farm.base.errors import UserError
from farm.roles import config
from farm.roles.protocols import Annotator, Context
from farm.storage.store import Store
from tests.annotators.llm.cases import make_pairs
from tests.annotators.llm.fault_server import Fault, FaultServer

PROVIDERS = ["openai", "anthropic"]


@pytest.fixture(params=[True, False], ids=["straight", "through the SDK"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LEAN", request.param)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDKs would take from the environment and send along."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-SECRET")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-SECRET")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-gateway: SECRET")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-gateway: SECRET")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-SECRETSECRET")


def place(server: FaultServer, provider: str) -> str:
    return server.url + ("/v1" if provider == "openai" else "")


def judge(server: FaultServer, provider: str, store: Store, **settings: object) -> LLMAnnotator:
    url = place(server, provider)
    return LLMAnnotator(f"{provider}/judge", "plain_line", base_url=url, store=store, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_providers_key_never_goes_to_a_base_url_of_a_yaml(provider: str, store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        table = judge(server, provider, store).annotate(make_pairs(3), seed=0)
    assert (table["status"] == "ok").all()
    assert "SECRET" not in str(server.headers)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_server_gets_the_key_that_its_judge_names(provider: str, store: Store, quick: Limits) -> None:
    with FaultServer() as server, session(quick):
        judge(server, provider, store, key="JUDGE_KEY").annotate(make_pairs(2), seed=0)
    sent = str(server.headers)
    assert "sk-judge-SECRETSECRET1234567890" in sent
    assert "SECRET" not in sent.replace("sk-judge-SECRETSECRET1234567890", "")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_address_that_the_providers_variable_names_gets_its_key(
    provider: str, store: Store, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer() as server, session(quick):
        monkeypatch.setenv(f"{provider.upper()}_BASE_URL", place(server, provider))
        LLMAnnotator(f"{provider}/judge", "plain_line", store=store).annotate(make_pairs(2), seed=0)
    assert {"openai": "sk-proj-SECRET", "anthropic": "sk-ant-SECRET"}[provider] in str(server.headers[0])


@pytest.mark.parametrize("cls", [LLMAnnotator, LLMRater])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "gateway.example.com/v1"}, "must be like"),
        ({"base_url": "ftp://gateway.example.com"}, "must be like"),
        ({"base_url": "https://gateway.example.com:99999/v1"}, "65535"),
        ({"base_url": "http://gateway.example.com/v1"}, "use https"),
        ({"base_url": "https://user:hunter2@gateway.example.com/v1"}, "a user or a password"),
        ({"base_url": "https://gateway.example.com/v1", "key": "OPENAI_API_KEY"}, "goes to api"),
        ({"base_url": "https://gateway.example.com/v1", "key": "sk-hunter2"}, "name of an environment variable"),
    ],
)
def test_addresses_and_keys_are_checked_once_and_up_front(cls: type, settings: dict[str, object], message: str) -> None:
    spec = {"class": f"{cls.__module__}.{cls.__qualname__}", "model": "openai/judge", **settings}
    with pytest.raises(UserError, match=message) as caught:
        config.build(Annotator, spec)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_address_in_the_environment_is_said_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:hunter2@gateway.example.com/v1")
    with pytest.raises(UserError, match="OPENAI_BASE_URL") as caught:
        LLMAnnotator("openai/judge")
    assert "hunter2" not in str(caught.value)


def test_every_model_of_a_pool_has_its_own_server_and_key(
    store: Store, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-other-SECRET")
    with FaultServer() as one, FaultServer() as two, session(quick):
        models = {
            "strong": {"model": "openai/judge", "base_url": place(one, "openai"), "key": "JUDGE_KEY"},
            "quick": {"model": "openai/judge", "base_url": place(two, "openai"), "key": "OTHER_KEY"},
        }
        members = {"a": {"model": "strong"}, "b": {"model": "quick"}}
        spec = {"class": "annotators.llm.pool.LLMPool", "models": models, "members": members}
        config.build(Annotator, spec, Context(store=store)).annotate(make_pairs(30), seed=0)
    assert {h["authorization"] for h in one.headers} == {"Bearer sk-judge-SECRETSECRET1234567890"}
    assert {h["authorization"] for h in two.headers} == {"Bearer sk-other-SECRET"}


def test_a_key_is_no_part_of_what_a_verdict_depends_on(store: Store) -> None:
    plain = LLMAnnotator("openai/judge", base_url="http://127.0.0.1:1/v1", store=store)
    named = dataclasses.replace(plain, key="JUDGE_KEY")
    assert description(plain) == description(named)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_redirect_is_not_followed(provider: str, store: Store, quick: Limits) -> None:
    with FaultServer() as other:
        moved = Fault(status=307, headers={"location": other.url + "/v1/chat/completions"})
        with FaultServer(lambda *_: moved) as server, session(quick), pytest.raises(UserError, match="not followed"):
            judge(server, provider, store, key="JUDGE_KEY").annotate(make_pairs(3), seed=0)
    assert not other.seen


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_server_that_wants_a_key_is_told_apart_from_a_wrong_key(provider: str, store: Store, quick: Limits) -> None:
    with FaultServer(lambda *_: Fault(status=401)) as server, session(quick):
        with pytest.raises(UserError, match="wants a key"):
            judge(server, provider, store).annotate(make_pairs(1), seed=0)
        with pytest.raises(UserError, match="JUDGE_KEY"):
            judge(server, provider, store, key="JUDGE_KEY").annotate(make_pairs(1), seed=1)


def test_regions_of_a_provider_are_the_provider() -> None:
    assert backends.keys.OPENAI.key("https://eu.api.openai.com/v1", None)[1] == "OPENAI_API_KEY"
    assert backends.keys.OPENAI.key("https://api.openai.com.example/v1", None) == ("", "")
    assert backends.keys.ANTHROPIC.key("https://api.anthropic.com.example", None) == ("", "")


@pytest.mark.parametrize("variable", ["MY_GATEWAY_KEY", "OPENAI_API_KEY"])
@pytest.mark.parametrize("wrong", ["\r", "\n", " x", "é"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, wrong: str
) -> None:
    monkeypatch.setenv(variable, f"value-of-mine{wrong}")
    named = variable if variable == "MY_GATEWAY_KEY" else None
    with pytest.raises(UserError, match=f"the key in {variable} holds") as said:
        backends.connect("openai", "judge", "https://api.openai.com/v1", named)
    assert "value-of-mine" not in str(said.value)


def test_a_key_of_any_name_is_taken_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server repeats is printed and stored: the variable that a judge names need not be called a key."""
    monkeypatch.setenv("MY_GATEWAY_AUTH", "correct-horse-battery")
    assert addresses.key_of("MY_GATEWAY_AUTH", "https://gateway.example/v1") == "correct-horse-battery"
    assert redacted("401: correct-horse-battery is unknown here") == "401: [key] is unknown here"
