"""Models behind OpenAI's chat API, and every server that speaks it (vLLM, SGLang, llama.cpp, Ollama, gateways).

Address from ``base_url`` or OPENAI_BASE_URL; which key goes there is said in keys.py. The official SDK does the
authentication, the address and the errors; the answer is read here, because servers that merely resemble OpenAI's
leave fields out.

Servers differ in the parameters they know. When one refuses log-probabilities, JSON schemas, seeds or the name of the
token limit, this backend goes on without and says so, once for each. A refused temperature or reasoning effort stops
the run, because leaving it out would change who is simulated; so does a refused field of `extra`.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from annotators.llm.backends.batches import Ended, Lost
from annotators.llm.backends.http_failures import about
from annotators.llm.backends.keys import OPENAI
from annotators.llm.backends.openai_answers import completion, ended, filtered, lacking, lines, of_filter
from annotators.llm.backends.wire import TIMEOUT, Gone, Unacceptable, Wire, http_client
from annotators.llm.completion import Completion, Request, Unreadable, redacted, unreadable
from annotators.llm.question import FLOOR, expected_tokens
from farm.base.errors import UserError, need
from farm.base.progress import note

TOP, FEWER = 20, 5
"""alternatives asked for with log-probabilities: the most that servers give by default, and what others still give"""


class OpenAIServer:
    """One client for all questions to one model."""

    concurrency = 64

    def __init__(self, name: str, base_url: str | None = None, key: str | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise need("judges", "openai", f"model openai/{name}") from error
        url = OPENAI.address(base_url)
        secret, variable = OPENAI.key(url, key)
        if not secret and url == OPENAI.official:
            raise UserError(
                f"model openai/{name}: set the environment variable {OPENAI.keys[0]}, or name another server with "
                "base_url"
            )
        self.who = f"{name} at {url}"
        host = urlsplit(url).hostname or ""
        theirs = host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
        self._limit = "max_completion_tokens" if theirs else "max_tokens"
        self._adapted: set[str] = set()
        own = OPENAI.owns(url)
        client = openai.AsyncOpenAI(
            api_key=secret or "none",
            base_url=url,
            max_retries=0,  # the session retries, for all questions together
            timeout=TIMEOUT,
            http_client=http_client(openai.DefaultAsyncHttpxClient, own),
        )
        self.wire = Wire(openai, client, url, self.who, variable, own)

    async def complete(self, request: Request) -> Completion:
        while True:
            sent = self.body(request)
            try:
                answer = await self.wire.post("/chat/completions", sent)
                said = completion(answer, request.labels, self.who)
                if missing := lacking(answer, "logprobs" in sent):
                    note(f"{self.who} {missing}")
                return said
            except Unreadable as odd:
                return unreadable(odd)
            except Unacceptable as refusal:
                if filtered(refusal.body):
                    return of_filter(refusal.body, expected_tokens(request))
                # another question may have been refused, and all adapted, in the meantime
                if self.body(request) == sent and not self.adapt(about(refusal.body), sent):
                    raise self.wire.mean(refusal) from None

    def most(self, request: Request) -> int:
        """Tokens of an answer that are asked for at most."""
        return max(request.max_tokens, FLOOR)

    async def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Submit a batch; its id."""
        lines = [
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}
            for name, request in requests.items()
        ]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        client = self.wire.client
        file = await self.wire.batch(client.files.create(file=("questions.jsonl", content), purpose="batch"))
        batch = await self.wire.batch(
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"mark": mark}
            )
        )
        return str(batch.id)

    async def find(self, mark: str, since: float, count: int) -> str | None:  # noqa: ARG002
        """The batch with this mark among the last hundred."""
        listed = await self.wire.batch(self.wire.client.batches.list(limit=100))
        return next((str(b.id) for b in listed.data if (b.metadata or {}).get("mark") == mark), None)

    async def collect(self, batch: str) -> Ended | None:
        """What became of a batch that has ended; None while it runs."""
        client = self.wire.client
        state = await self.wire.batch(client.batches.retrieve(batch))
        if state.status not in ("completed", "failed", "expired", "cancelled"):
            return None
        out: dict[str, Completion | Lost] = {}
        try:
            for file in (state.output_file_id, state.error_file_id):
                if file:
                    content = (await self.wire.batch(client.files.content(file), results=True)).content
                    out |= dict(lines(content, self.who))
        except Gone:
            return Ended(out, f"the results of batch {batch} have expired at {self.who}", again=True)
        return ended(out, state.status, getattr(state.errors, "data", None) or [])

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the API takes it."""
        messages = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        floor = FLOOR if self._limit == "max_completion_tokens" or "floor" in self._adapted else 1
        out: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            self._limit: max(request.max_tokens, floor),
        }
        if request.temperature is not None:
            out["temperature"] = request.temperature
            if request.temperature > 0 and "seed" not in self._adapted:
                out["seed"] = (request.seed * 1_000_003 + request.replicate) % 2**31
        if request.labels and "logprobs" not in self._adapted:
            out |= {"logprobs": True, "top_logprobs": FEWER if "top_logprobs" in self._adapted else TOP}
        if request.schema and "response_format" not in self._adapted:
            wanted = {"name": "verdict", "strict": True, "schema": request.schema}
            out["response_format"] = {"type": "json_schema", "json_schema": wanted}
        if request.effort is not None and "reasoning_effort" not in self._adapted:
            out["reasoning_effort"] = request.effort
        return out | dict(request.extra or {})

    def adapt(self, said: str, sent: dict[str, Any] | None = None) -> bool:
        """Whether what was refused (see :func:`about`) can be left out or said otherwise, which it is from now on.

        Every parameter is adapted once. ``sent``: what was refused; of a line of a batch it is no longer known.
        """
        if "temperature" in said and (sent is None or "temperature" in sent):
            raise UserError(f"{self.who} accepts no temperature: set `temperature: null` ({redacted(said)})") from None
        if "reasoning_effort" in said and any(word in said for word in ("value", "does not support")):
            raise UserError(
                f"{self.who} refuses the reasoning effort: set `effort` to one that it takes, and `thinking` to the "
                f"tokens of room for it ({redacted(said, 120)})"
            ) from None
        for parameter, instead in _OPTIONAL.items():
            if parameter in self._adapted or (sent is not None and parameter not in _named(sent)):
                continue
            if not _refused(parameter, said):
                continue
            self._adapted.add(parameter)
            if parameter in _LIMITS:
                self._limit = _LIMITS[parameter]
            note(f"{self.who} does not take {parameter}: {instead}")
            return True
        for name in sorted((sent or {}).keys() - OPENAI.body):
            if re.search(rf"""(["'`]|supplied: ){re.escape(name.lower())}\b""", said):
                raise UserError(f"{self.who} does not take `{name}` of `extra`: leave it out ({redacted(said, 120)})")
        return False

    async def close(self) -> None:
        await self.wire.close()


_LIMITS = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
_OPTIONAL = {
    "floor": f"asked with a limit of at least {FLOOR} tokens",
    "max_completion_tokens": "asked with max_tokens",
    "max_tokens": "asked with max_completion_tokens",
    "top_logprobs": f"asked for {FEWER} alternatives only",
    "logprobs": "verdicts are read from the text, without probabilities",
    "response_format": "verdicts are read from the text",
    "reasoning_effort": "asked without a reasoning effort",
    "seed": "asked without, so a repeated question may be answered differently",
}
"""What can be left out or said otherwise, in the order in which it is tried: a refusal of ``top_logprobs`` for the
second time is one of ``logprobs``, whose name is in it."""


def _named(sent: dict[str, Any]) -> set[str]:
    return {*sent, "floor"}


def _refused(parameter: str, said: str) -> bool:
    """Whether a refusal is about this parameter."""
    too_small = "integer_below_min_value" in said or "expected a value >=" in said
    if parameter == "floor":
        return too_small and any(limit in said for limit in _LIMITS)
    if parameter in _LIMITS:  # they are named where a question is too long, too
        return parameter in said and not (too_small or "context" in said or "too large" in said)
    return parameter in said
