"""Models behind OpenAI's chat API, and every server that speaks it (vLLM, SGLang, llama.cpp, Ollama, gateways).

Key from OPENAI_API_KEY, address from ``base_url`` or OPENAI_BASE_URL. The official SDK does the authentication, the
address and the errors; the answer is read here, because servers that merely resemble OpenAI's leave fields out.

Servers differ in the parameters they know. When one refuses log-probabilities, JSON schemas, seeds or the name of the
token limit, this backend goes on without and says so once; a refused temperature stops the run, because leaving it
out would change who is simulated.
"""

from __future__ import annotations

import os
from typing import Any

from annotators.llm.backends.http_failures import code, message
from annotators.llm.backends.wire import TIMEOUT, Unacceptable, Wire, http_client
from annotators.llm.completion import Completion, Finish, Request, TryAgain, redacted
from annotators.llm.notices import say
from farm.errors import UserError, need

OFFICIAL = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
TOP = 20
"""alternatives asked for with log-probabilities, the most that servers give by default"""


def address(base_url: str | None) -> str:
    """The address asked: ``base_url``, else OPENAI_BASE_URL, else OpenAI's own."""
    return (base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL).rstrip("/")


class OpenAIServer:
    """One client for all questions to one model."""

    concurrency = 64

    def __init__(self, name: str, base_url: str | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise need("judges", "openai", f"model openai/{name}") from error
        url = address(base_url)
        key = os.environ.get(KEY, "")
        if not key and url.startswith(OFFICIAL):
            raise UserError(
                f"model openai/{name}: set the environment variable {KEY}, or name another server with base_url"
            )
        self.who = f"{name} at {url}"
        self._official = url.startswith(OFFICIAL)
        self._without: set[str] = set() if self._official else {"max_completion_tokens"}
        client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=url,
            max_retries=0,  # the session retries, for all questions together
            timeout=TIMEOUT,
            http_client=http_client(openai.DefaultAsyncHttpxClient),
        )
        self.wire = Wire(openai, client, url, self.who, KEY)

    async def complete(self, request: Request) -> Completion:
        while True:
            sent = self.body(request)
            try:
                return completion(await self.wire.post("/chat/completions", sent), request, self.who)
            except Unacceptable as refusal:
                if not self._adapt(refusal.body, sent):
                    raise self.wire.mean(refusal) from None

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the API takes it."""
        messages = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        limit = "max_tokens" if "max_completion_tokens" in self._without else "max_completion_tokens"
        out: dict[str, Any] = {"model": request.model, "messages": messages, limit: request.max_tokens}
        if request.temperature is not None:
            out["temperature"] = request.temperature
            if request.temperature > 0 and "seed" not in self._without:
                out["seed"] = (request.seed * 1_000_003 + request.replicate) % 2**31
        if request.labels and "logprobs" not in self._without:
            out |= {"logprobs": True, "top_logprobs": TOP if "top_logprobs" not in self._without else 5}
        if request.schema and "response_format" not in self._without:
            wanted = {"name": "verdict", "strict": True, "schema": request.schema}
            out["response_format"] = {"type": "json_schema", "json_schema": wanted}
        if request.effort is not None:
            out["reasoning_effort"] = request.effort
        return out

    def _adapt(self, refusal: object, sent: dict[str, Any]) -> bool:
        about = f"{code(refusal)} {message(refusal)}".lower()
        if "temperature" in about and "temperature" in sent:
            raise UserError(f"{self.who} accepts no temperature: set `temperature: null` ({redacted(about)})") from None
        for parameter, instead in _OPTIONAL.items():
            if parameter in sent and parameter in about:
                self._without.add(parameter)
                say(f"{self.who} does not take {parameter}: {instead}")
                return True
        return False

    async def close(self) -> None:
        await self.wire.close()


_OPTIONAL = {
    "max_completion_tokens": "asked with max_tokens",
    "top_logprobs": "asked for 5 alternatives only",
    "logprobs": "verdicts are read from the text, without probabilities",
    "response_format": "verdicts are read from the text",
    "reasoning_effort": "asked without a reasoning effort",
    "seed": "asked without, so a repeated question may be answered differently",
}


def completion(data: dict[str, Any], request: Request, who: str) -> Completion:
    """A chat completion as plain data, read leniently: only the text is required."""
    try:
        choice = data["choices"][0]
        said = choice.get("message") or {}
        usage = data.get("usage") or {}
        text = said.get("content")
        refused = bool(said.get("refusal")) or choice.get("finish_reason") == "content_filter"
        if text is None and not refused and choice.get("finish_reason") != "length":
            raise KeyError("content")
        finish: Finish = "refusal" if refused else "length" if choice.get("finish_reason") == "length" else "stop"
        return Completion(
            text=str(text or said.get("refusal") or ""),
            labels=label_log_probabilities(choice.get("logprobs"), request.labels) if request.labels else None,
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            finish=finish,
            model=str(data.get("model") or request.model),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise TryAgain(f"{who}: the answer has no text in choices[0].message.content", charged=True) from None


def label_log_probabilities(logprobs: Any, labels: tuple[str, ...]) -> dict[str, float] | None:
    """Log-probabilities of the labels as the first token; None where no label is among the alternatives."""
    import math

    content = (logprobs or {}).get("content") or []
    if not content:
        return None
    first = content[0]
    listed: dict[str, float] = {}
    for alternative in [*(first.get("top_logprobs") or []), first]:
        listed[str(alternative["token"])] = float(alternative["logprob"])
    found: dict[str, float] = {}
    for label in labels:  # "1" and " 1" are two tokens that say the same
        same = [p for token, p in listed.items() if token.strip() == label]
        if same:
            found[label] = math.log(sum(math.exp(p) for p in same)) if max(same) > -700 else max(same)
    if not found:
        return None
    smallest = min(listed.values())
    return {label: found.get(label, smallest) for label in labels}
