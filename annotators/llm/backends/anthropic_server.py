"""Claude models behind Anthropic's messages API, and servers that speak it (vLLM among them).

Key from ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN, address from ``base_url`` or ANTHROPIC_BASE_URL. The API gives no
log-probabilities, so verdicts come as structured output or are read from the text. Claude models since Opus 4.7 accept
no temperature (leave it null); those that always think need room for it in ``max_tokens``.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any

from annotators.llm.backends.http_failures import code, message
from annotators.llm.backends.wire import TIMEOUT, Unacceptable, Wire, http_client
from annotators.llm.completion import Completion, Finish, Request, TryAgain, redacted
from farm.errors import UserError, need
from farm.progress import note

OFFICIAL = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"


def address(base_url: str | None) -> str:
    """The address asked: ``base_url``, else ANTHROPIC_BASE_URL, else Anthropic's own."""
    return (base_url or os.environ.get("ANTHROPIC_BASE_URL") or OFFICIAL).rstrip("/")


class AnthropicServer:
    """One client for all questions to one model."""

    concurrency = 32

    def __init__(self, name: str, base_url: str | None = None) -> None:
        try:
            import anthropic
        except ImportError as error:
            raise need("judges", "anthropic", f"model anthropic/{name}") from error
        url = address(base_url)
        key, token = os.environ.get(KEY), os.environ.get("ANTHROPIC_AUTH_TOKEN")
        if not key and not token and url.startswith(OFFICIAL):
            raise UserError(
                f"model anthropic/{name}: set the environment variable {KEY}, or name another server with base_url"
            )
        self.who = f"{name} at {url}"
        self._without: set[str] = set()
        client = anthropic.AsyncAnthropic(
            api_key=key,
            auth_token=None if key else token or "none",
            base_url=url,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=http_client(anthropic.DefaultAsyncHttpxClient),
        )
        self.wire = Wire(anthropic, client, url, self.who, KEY)

    async def complete(self, request: Request) -> Completion:
        while True:
            sent = self.body(request)
            try:
                return completion(await self.wire.post("/v1/messages", sent), self.who)
            except Unacceptable as refusal:
                if not self._adapt(refusal.body, sent):
                    raise self.wire.mean(refusal) from None

    async def submit(self, requests: dict[str, Request], mark: str) -> str:  # noqa: ARG002
        """Hand in a batch; its id."""
        entries = [{"custom_id": name, "params": self.body(request)} for name, request in requests.items()]
        batch = await self._batch(self.wire.client.messages.batches.create(requests=entries))
        return str(batch.id)

    async def find(self, mark: str, since: float, count: int) -> str | None:  # noqa: ARG002
        """The first batch of this many requests since then (a minute of difference between clocks is allowed)."""
        listed = await self._batch(self.wire.client.messages.batches.list(limit=100))
        fitting = [
            (b.created_at.timestamp(), str(b.id))
            for b in listed.data
            if sum(vars(b.request_counts).values()) == count and b.created_at.timestamp() > since - 60
        ]
        return min(fitting)[1] if fitting else None

    async def collect(self, batch: str) -> dict[str, Completion | str] | None:
        """The answers of a batch that has ended; None while it runs."""
        batches = self.wire.client.messages.batches
        if (await self._batch(batches.retrieve(batch))).processing_status != "ended":
            return None
        out: dict[str, Completion | str] = {}
        async for entry in await self._batch(batches.results(batch)):
            result = entry.result
            if result.type == "succeeded":
                try:
                    out[entry.custom_id] = completion(result.message.model_dump(), self.who)
                except TryAgain as error:
                    out[entry.custom_id] = str(error)
            else:
                said = result.error.model_dump() if result.type == "errored" else {}
                out[entry.custom_id] = redacted(f"{result.type} {message(said.get('error', said))}".strip())
        return out

    async def _batch(self, call: Awaitable[Any]) -> Any:
        try:
            return await self.wire.sdk(call)
        except Unacceptable as refusal:
            raise self.wire.mean(refusal) from None

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the API takes it."""
        out: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": "user", "content": request.user}],
        }
        if request.system:
            out["system"] = request.system
        if request.temperature is not None:
            out["temperature"] = request.temperature
        output: dict[str, Any] = {}
        if request.effort is not None:
            output["effort"] = request.effort
        if request.schema and "output_config" not in self._without:
            output["format"] = {"type": "json_schema", "schema": request.schema}
        return out | ({"output_config": output} if output else {})

    def _adapt(self, refusal: object, sent: dict[str, Any]) -> bool:
        about = f"{code(refusal)} {message(refusal)}".lower()
        if "temperature" in about and "temperature" in sent:
            raise UserError(f"{self.who} accepts no temperature: set `temperature: null` ({redacted(about)})") from None
        if ("output_config" in about or "format" in about) and "format" in sent.get("output_config", {}):
            self._without.add("output_config")
            note(f"{self.who} does not take a JSON schema: verdicts are read from the text")
            return True
        return False

    async def close(self) -> None:
        await self.wire.close()


def completion(data: dict[str, Any], who: str) -> Completion:
    """A message as plain data: its text blocks together; blocks of thinking are left out."""
    try:
        text = "".join(str(block["text"]) for block in data["content"] if block.get("type") == "text")
        usage = data.get("usage") or {}
        reason = data.get("stop_reason")
        finish: Finish = "refusal" if reason == "refusal" else "length" if reason == "max_tokens" else "stop"
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return Completion(
            text=text,
            input_tokens=sum(int(usage.get(part) or 0) for part in parts),
            output_tokens=int(usage.get("output_tokens") or 0),
            finish=finish,
            model=str(data.get("model") or ""),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise TryAgain(f"{who}: the answer has no text blocks in content", charged=True) from None
