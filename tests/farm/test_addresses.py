"""Which addresses are refused, and which key may go where."""

from __future__ import annotations

import pytest

from farm.base import addresses
from farm.base.errors import UserError

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1", "https://gateway.example.com:8443/v1/", "http://127.0.0.1:8000/v1",
        "http://localhost:8000", "http://[::1]:8000/v1", "http://192.168.1.4/v1", "http://10.0.0.7:80", "http://judge:80/v1",
        "http://100.64.0.9/v1", "http://vllm.default.svc.cluster.local:8000", "http://box.local/v1",
    ],
)  # fmt: skip
def test_addresses_of_servers_are_taken(url: str) -> None:
    assert addresses.checked(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gateway.example.com/v1", "must be like"),
        ("localhost:8000/v1", "must be like"),
        ("ftp://gateway.example.com/v1", "must be like"),
        ("https:///v1", "must be like"),
        ("https://gateway.example.com:99999/v1", "from 1 to 65535"),
        ("https://gateway.example.com:0/v1", "from 1 to 65535"),
        ("https://gateway.example.com:http/v1", "from 1 to 65535"),
        ("http://gateway.example.com/v1", "use https"),
        ("http://8.8.8.8/v1", "use https"),
        ("http://134744072/v1", "use https"),
        ("http://0x08080808/v1", "use https"),
        ("http://127.0.0.1.example.com/v1", "use https"),
        ("https://gateway.example.com/v1?token=x", "leave out"),
        ("https://gateway.example.com/v1 x", "a space"),
        ("https://gateway.example.com\\@evil.example/v1", "user or a password"),
        (f"https://user:{SECRET}@gateway.example.com/v1", "user or a password"),
        (f"user:{SECRET}@gateway.example.com", "user or a password"),
    ],
)
def test_others_are_refused_in_one_sentence_without_their_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        addresses.checked(url)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_providers_key_goes_to_the_provider_and_to_the_address_its_variable_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for theirs in ("https://api.openai.com/v1", "https://eu.api.openai.com/v1"):
        assert addresses.belongs("OPENAI_API_KEY", theirs)
    for other in (
        "https://gateway.example.com/v1", "https://api.openai.com.evil.example/v1", "http://api.openai.com/v1",
        "https://evil-api.openai.com.example", "https://evilapi.openai.com/v1",
    ):  # fmt: skip
        assert not addresses.belongs("OPENAI_API_KEY", other)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.com/v1/")
    assert addresses.belongs("OPENAI_API_KEY", "https://gateway.example.com/v1")
    assert not addresses.belongs("OPENAI_API_KEY", "https://gateway.example.com/v1/other")
    assert not addresses.belongs("ANTHROPIC_API_KEY", "https://gateway.example.com/v1")


def test_a_key_is_named_by_its_variable_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://gateway.example.com/v1"
    monkeypatch.setenv("MY_GATEWAY_KEY", SECRET)
    assert addresses.key_of("MY_GATEWAY_KEY", url) == SECRET
    with pytest.raises(UserError, match=r"MY_OTHER_KEY.*is not set"):
        addresses.key_of("MY_OTHER_KEY", url)
    with pytest.raises(UserError, match=r"OPENAI_API_KEY goes to api\.openai\.com"):
        addresses.key_of("OPENAI_API_KEY", url)
    with pytest.raises(UserError, match="name of an environment variable") as caught:
        addresses.key_of(f"sk-{SECRET}", url)
    assert SECRET not in str(caught.value)
