"""Models behind OpenAI's chat API, and every server that speaks it (vLLM, SGLang, llama.cpp, Ollama, gateways).

Key from OPENAI_API_KEY, address from ``base_url`` or OPENAI_BASE_URL. The official SDK does the authentication, the
address and the errors; the answer is read here, because servers that merely resemble OpenAI's leave fields out.

Servers differ in the parameters they know. When one refuses log-probabilities, JSON schemas, seeds or the name of the
token limit, this backend goes on without and says so once; a refused temperature stops the run, because leaving it
out would change who is simulated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable
from typing import Any

from annotators.llm.backends.http_failures import code, decoded, message
from annotators.llm.backends.wire import TIMEOUT, Unacceptable, Wire, http_client
from annotators.llm.completion import Completion, Finish, Request, TryAgain, redacted
from annotators.llm.labels import of_listed
from farm.errors import UserError, need
from farm.progress import note

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
                return completion(await self.wire.post("/chat/completions", sent), request.labels, self.who)
            except Unacceptable as refusal:
                if not self._adapt(refusal.body, sent):
                    raise self.wire.mean(refusal) from None

    async def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Hand in a batch; its id."""
        lines = [
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}
            for name, request in requests.items()
        ]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        client = self.wire.client
        file = await self._batch(client.files.create(file=("questions.jsonl", content), purpose="batch"))
        batch = await self._batch(
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"mark": mark}
            )
        )
        return str(batch.id)

    async def find(self, mark: str, since: float, count: int) -> str | None:  # noqa: ARG002
        """The batch with this mark among the last hundred."""
        listed = await self._batch(self.wire.client.batches.list(limit=100))
        return next((str(b.id) for b in listed.data if (b.metadata or {}).get("mark") == mark), None)

    async def collect(self, batch: str) -> dict[str, Completion | str] | None:
        """The answers of a batch that has ended; None while it runs."""
        client = self.wire.client
        state = await self._batch(client.batches.retrieve(batch))
        if state.status not in ("completed", "failed", "expired", "cancelled"):
            return None
        out: dict[str, Completion | str] = {}
        for file in (state.output_file_id, state.error_file_id):
            if file:
                content = (await self._batch(client.files.content(file))).content
                out |= dict(_batch_line(line, self.who) for line in content.splitlines() if line.strip())
        return out

    async def _batch(self, call: Awaitable[Any]) -> Any:
        try:
            return await self.wire.sdk(call)
        except Unacceptable as refusal:
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
                note(f"{self.who} does not take {parameter}: {instead}")
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


def _batch_line(line: bytes, who: str) -> tuple[str, Completion | str]:
    """One line of a result file: whose it is, and the completion or why there is none."""
    data = decoded(line, who)
    name = str(data.get("custom_id"))
    response = data.get("response") or {}
    body = response.get("body") or {}
    if data.get("error") or response.get("status_code") != 200:
        return name, redacted(message(data.get("error") or body) or f"status {response.get('status_code')}")
    try:
        return name, completion(body, ("1", "2") if body.get("choices", [{}])[0].get("logprobs") else (), who)
    except TryAgain as error:
        return name, str(error)


def completion(data: dict[str, Any], labels: tuple[str, ...], who: str) -> Completion:
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
        first = of_listed(listed_tokens(choice.get("logprobs")), labels) if labels else None
        return Completion(
            text=str(text or said.get("refusal") or ""),
            labels=first.logs if first else None,
            mass=first.mass if first else None,
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            finish=finish,
            model=str(data.get("model") or ""),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise TryAgain(f"{who}: the answer has no text in choices[0].message.content", charged=True) from None


def listed_tokens(logprobs: Any) -> dict[str, float]:
    """The tokens that could have been the first, with their log-probabilities; none where they cannot be read."""
    try:
        first = logprobs["content"][0]
        alternatives = [*(first.get("top_logprobs") or []), first]
        return {str(alternative["token"]): float(alternative["logprob"]) for alternative in alternatives}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        return {}
