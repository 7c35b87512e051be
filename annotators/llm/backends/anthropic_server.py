"""Claude models behind Anthropic's messages API, and servers that speak it (vLLM among them).

Address from ``base_url`` or ANTHROPIC_BASE_URL; which key goes there is said in keys.py. The API gives no
log-probabilities, so verdicts come as structured output or are read from the text. Claude models since Opus 4.7 accept
no temperature (leave it null). Those of today think before they answer unless thinking is switched off, and their
thinking counts in ``max_tokens``: it is switched off for a judge without ``thinking``, and models that always think
get additional tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from annotators.llm.backends.batches import Ended, Lost
from annotators.llm.backends.http_failures import about, code, decoded, message
from annotators.llm.backends.keys import ANTHROPIC
from annotators.llm.backends.wire import TIMEOUT, Gone, Unacceptable, Wire, http_client
from annotators.llm.completion import (
    Adapted,
    Completion,
    Finish,
    Request,
    TryAgain,
    Unreadable,
    printable,
    redacted,
    tokens,
    unreadable,
)
from farm.base.errors import UserError, need
from farm.base.progress import note

ROOM = 2000
"""tokens to think with, for a model whose thinking cannot be switched off"""


class AnthropicServer:
    """One client for all questions to one model."""

    concurrency = 32

    def __init__(self, name: str, base_url: str | None = None, key: str | None = None) -> None:
        try:
            import anthropic
        except ImportError as error:
            raise need("judges", "anthropic", f"model anthropic/{name}") from error
        url = ANTHROPIC.address(base_url)
        secret, variable = ANTHROPIC.key(url, key)
        if not secret and url == ANTHROPIC.official:
            raise UserError(
                f"model anthropic/{name}: set the environment variable {ANTHROPIC.keys[0]}, or name another server "
                "with base_url"
            )
        self.who = f"{name} at {url}"
        self._adapted: set[str] = set()
        token = variable == "ANTHROPIC_AUTH_TOKEN"
        own = ANTHROPIC.owns(url)
        client = anthropic.AsyncAnthropic(
            api_key=None if token else secret or "none",  # what is given here keeps the SDK from the environment
            auth_token=secret if token else None,
            base_url=url,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=http_client(anthropic.DefaultAsyncHttpxClient, own),
        )
        self.wire = Wire(anthropic, client, url, self.who, variable, own)

    async def complete(self, request: Request) -> Completion:
        while True:
            if request.allowed is not None and self.most(request) > request.allowed:
                raise Adapted
            sent = self.body(request)
            try:
                return completion(await self.wire.post("/v1/messages", sent), self.who)
            except Unreadable as odd:
                return unreadable(odd)
            except Unacceptable as refusal:
                # another question may have been refused, and all adapted, in the meantime
                if self.body(request) == sent and not self.adapt(about(refusal.body), sent):
                    raise self.wire.mean(refusal) from None

    def most(self, request: Request) -> int:
        """Tokens of an answer that are asked for at most."""
        return request.max_tokens + (ROOM if "thinking" in self._adapted and not request.thinking else 0)

    async def submit(self, requests: dict[str, Request], mark: str) -> str:  # noqa: ARG002
        """Submit a batch; its id."""
        entries = [{"custom_id": name, "params": self.body(request)} for name, request in requests.items()]
        batch = await self.wire.batch(self.wire.client.messages.batches.create(requests=entries))
        return str(batch.id)

    async def find(self, mark: str, since: float, count: int) -> str | None:  # noqa: ARG002
        """The first batch of this many requests since then (a minute of difference between clocks is allowed)."""
        listed = await self.wire.batch(self.wire.client.messages.batches.list(limit=100))
        fitting = [
            (b.created_at.timestamp(), str(b.id))
            for b in listed.data
            if sum(vars(b.request_counts).values()) == count and b.created_at.timestamp() > since - 60
        ]
        return min(fitting)[1] if fitting else None

    async def collect(self, batch: str) -> Ended | None:
        """What became of a batch that has ended; None while it runs."""
        client = self.wire.client
        state = await self.wire.batch(client.messages.batches.retrieve(batch))
        if state.processing_status != "ended":
            return None
        expired = Ended({}, f"the results of batch {batch} have expired at {self.who}", again=True)
        if not state.results_url:
            return expired
        # Not at ``results_url``, which may be anywhere: the key goes along.
        place = f"/v1/messages/batches/{quote(batch, safe='')}/results"
        try:
            answer = await self.wire.batch(client.get(place, cast_to=self.wire.response), results=True)
        except Gone:
            return expired
        return Ended(dict(_lines(answer.content, self.who)))

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the API takes it."""
        out: dict[str, Any] = {
            "model": request.model,
            "max_tokens": self.most(request),
            "messages": [{"role": "user", "content": request.user}],
        }
        if not request.thinking and "thinking" not in self._adapted:
            out["thinking"] = {"type": "disabled"}
        if request.system:
            out["system"] = request.system
        if request.temperature is not None:
            out["temperature"] = request.temperature
        output: dict[str, Any] = {}
        if request.effort is not None:
            output["effort"] = request.effort
        if request.schema and "format" not in self._adapted:
            output["format"] = {"type": "json_schema", "schema": request.schema}
        return out | ({"output_config": output} if output else {}) | dict(request.extra or {})

    def adapt(self, said: str, sent: dict[str, Any] | None = None) -> bool:
        """Whether what was refused (see :func:`about`) can be left out, which it is from now on; each once.

        ``sent``: what was refused; of a line of a batch it is no longer known.
        """
        if "temperature" in said and (sent is None or "temperature" in sent):
            raise UserError(f"{self.who} accepts no temperature: set `temperature: null` ({redacted(said)})") from None
        if "thinking" in said and "thinking" not in self._adapted and (sent is None or "thinking" in sent):
            self._adapted.add("thinking")
            note(f"{self.who} always thinks: asked with {ROOM:,} additional tokens for it; see `thinking`")
            return True
        of_format = ("output_config" in said or "format" in said) and "format" not in self._adapted
        if of_format and (sent is None or "format" in sent.get("output_config", {})):
            self._adapted.add("format")
            note(f"{self.who} does not take a JSON schema: verdicts are read from the text")
            return True
        return False

    async def close(self) -> None:
        await self.wire.close()


def _lines(content: bytes, who: str) -> Iterator[tuple[str, Completion | Lost]]:
    """The question and the outcome of each line of the results. Unreadable lines are left out."""
    for line in content.splitlines():
        try:
            entry = decoded(line, who)
        except (TryAgain, Unreadable):
            continue
        yield str(entry.get("custom_id")), _of_line(entry.get("result"), who)


def _of_line(result: Any, who: str) -> Completion | Lost:
    try:
        if result["type"] == "succeeded":
            return completion(result["message"], who)
        said = result.get("error") or {}
        refusal = said.get("error", said)
        why = redacted(f"{result['type']} {message(refusal)}".strip())
        refused = code(refusal).strip() == "invalid_request_error"
        return Lost(why, redacted(about(refusal)) if refused else "")
    except TryAgain as error:
        return Lost(str(error))
    except (AttributeError, TypeError, KeyError):
        return Lost("a line of the results has another form")


def completion(data: dict[str, Any], who: str) -> Completion:
    """A message as plain data: its text blocks together; blocks of thinking are left out."""
    try:
        text = "".join(str(block["text"]) for block in data["content"] if block.get("type") == "text")
        usage = data.get("usage") or {}
        reason = data.get("stop_reason")
        finish: Finish = "refusal" if reason == "refusal" else "length" if reason == "max_tokens" else "stop"
        written, cached = (tokens(usage.get(f"cache_{part}_input_tokens") or 0) for part in ("creation", "read"))
        return Completion(
            text=printable(text),
            input_tokens=tokens(usage.get("input_tokens")) + written + cached,
            output_tokens=tokens(usage.get("output_tokens")),
            finish=finish,
            model=printable(str(data.get("model") or ""))[:200],
            cached_tokens=cached,
            written_tokens=written,
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise TryAgain(f"{who}: the answer has no text blocks in content", charged=True) from None
