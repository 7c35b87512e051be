"""Where a language model runs: one small file for each kind of server or library, with one interface for all.

A model is named ``provider/name``: ``openai/gpt-6-luna``, ``anthropic/claude-haiku-5-5``,
``transformers/HuggingFaceTB/SmolLM2-135M-Instruct``, ``vllm/...``, ``replay/annotations.json``, ``mock/longer``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from annotators.llm.backends import keys
from annotators.llm.completion import Backend
from farm.base import addresses
from farm.base.errors import UserError, nearest

PROVIDERS = {
    "openai": "annotators.llm.backends.openai_server.OpenAIServer",
    "anthropic": "annotators.llm.backends.anthropic_server.AnthropicServer",
    "transformers": "annotators.llm.backends.transformers_model.TransformersModel",
    "vllm": "annotators.llm.backends.vllm_model.VLLMModel",
    "replay": "annotators.llm.backends.replay.Replay",
    "mock": "annotators.llm.backends.mock.Mock",
}


def split(model: str) -> tuple[str, str]:
    """``provider/name`` as (provider, name).

    Raises:
        UserError: when there is no such provider.
    """
    provider, slash, name = model.partition("/")
    if not slash or not name or provider not in PROVIDERS:
        hint = "" if provider in PROVIDERS else f"; {nearest(provider, PROVIDERS)}"
        raise UserError(f"model `{model}`: write it as provider/name, such as openai/gpt-6-luna or mock/longer{hint}")
    return provider, name


_NOT_EXTRA = frozenset("stream n best_of models tools plugins web_search_options service_tier".split())
"""what changes the form of an answer, how many there are, who answers, or what it costs beside its tokens"""


def check(provider: str, base_url: str | None, key: str | None, extra: Mapping[str, Any] | None = None) -> None:
    """Refuse an address that is none, a key that is none or belongs to another address, and ``extra`` fields of a
    request that are not to be set, before anything is sent.

    Raises:
        ValueError, UserError: naming what is wrong, and no secret.
    """
    if provider in keys.PROVIDERS:
        url = keys.PROVIDERS[provider].address(base_url)
        if key is not None:
            addresses.check_key(key, url)
    if not extra:
        return
    if provider not in keys.PROVIDERS:
        raise ValueError(f"`extra` is for requests to a server, and a model of {provider}/ gets none: leave it out")
    if own := sorted(keys.PROVIDERS[provider].body & extra.keys()):
        raise ValueError(f"`extra` must not set `{own[0]}`, which is written by settings of the annotator itself")
    if other := sorted(_NOT_EXTRA & extra.keys()):
        raise ValueError(f"`extra` must not set `{other[0]}`: it changes what is answered, by whom or at what price")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`extra` must be plain JSON ({error})") from None


def connect(provider: str, name: str, base_url: str | None, key: str | None = None) -> Backend:
    """The backend of a model; ``key`` names the variable of its address's key.

    Raises:
        UserError: when its library or key is absent.
    """
    module, _, cls = PROVIDERS[provider].rpartition(".")
    arguments = (name, base_url, key) if provider in keys.PROVIDERS else (name, base_url)
    found: Backend = getattr(importlib.import_module(module), cls)(*arguments)
    return found


def where(provider: str, base_url: str | None) -> str:
    """The address at which a provider's model will be asked, for the content address of its answers; no secrets."""
    return keys.PROVIDERS[provider].address(base_url) if provider in keys.PROVIDERS else ""
