"""Where a language model runs: one small file for each kind of server or library, with one interface for all.

A model is named ``provider/name``: ``openai/gpt-6-luna``, ``anthropic/claude-haiku-5-5``,
``transformers/HuggingFaceTB/SmolLM2-135M-Instruct``, ``vllm/...``, ``replay/annotations.json``, ``mock/longer``.
"""

from __future__ import annotations

import importlib

from annotators.llm.completion import Backend
from farm.errors import UserError, nearest

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
        raise UserError(
            f"model `{model}`: write it as provider/name, such as openai/gpt-6-luna or mock/longer; "
            f"{nearest(provider, PROVIDERS)}"
        )
    return provider, name


def connect(provider: str, name: str, base_url: str | None) -> Backend:
    """The backend of a model. Raises UserError when its library or key is absent."""
    module, _, cls = PROVIDERS[provider].rpartition(".")
    found: Backend = getattr(importlib.import_module(module), cls)(name, base_url)
    return found


def where(provider: str, base_url: str | None) -> str:
    """The address at which a provider's model will be asked, for the content address of its answers; no secrets."""
    if provider == "openai":
        from annotators.llm.backends.openai_server import address

        return address(base_url)
    if provider == "anthropic":
        from annotators.llm.backends.anthropic_server import address

        return address(base_url)
    return ""
