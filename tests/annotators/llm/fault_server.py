"""A loopback model server that speaks OpenAI's and Anthropic's APIs and fails on demand.

Asked nicely it prefers the longer output. ``plan`` sees every request and may return a Fault instead. It counts what
it answered, so a test knows what was paid for.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from annotators.llm.backends.mock import SCRIPTS
from annotators.llm.completion import Request

Handler = Callable[[str, str, dict[str, Any]], tuple[int, Any] | None]


@dataclass(frozen=True)
class Fault:
    """What to do instead of answering."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    hang_up: bool = False
    """close the connection without a byte"""
    truncate: bool = False
    """announce the whole answer, send half and close"""
    seconds_a_byte: float = 0.0
    raw: bytes | None = None
    """the body of a 200, whatever it is"""
    silent: float = 0.0
    """seconds of silence before the answer"""


def refusal(message: str, code: str | None = None, param: str | None = None) -> Fault:
    """A request that OpenAI's API refuses."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Fault(status=400, body={"error": error})


# What the services answer, as their users have recorded it.
BELOW_MINIMUM = refusal(
    "Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
    "integer_below_min_value",
    "max_completion_tokens",
)
WANTS_COMPLETION_TOKENS = refusal(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "unsupported_parameter",
    "max_tokens",
)
NO_SUCH_EFFORT = refusal(
    "Unsupported value: 'reasoning_effort' does not support 'none' with this model. Supported values are: 'low', "
    "'medium', 'high', and 'xhigh'.",
    "unsupported_value",
    "reasoning_effort",
)
TOP_LOGPROBS = refusal("Invalid value for 'top_logprobs': must be at most 0.", None, "top_logprobs")
AZURE_FILTER = Fault(
    status=400,
    body={
        "error": {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
            "policy. Please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"jailbreak": {"filtered": True, "detected": True}},
            },
        }
    },
)
ALWAYS_THINKS = Fault(
    status=400,
    body={
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": '"thinking.type.disabled" is not supported for this model.',
        },
    },
)
QUEUE_FULL = {
    "code": "token_limit_exceeded",
    "line": None,
    "message": "Enqueued token limit reached for judge in organization org-x. Limit: {:,} enqueued tokens. Please try "
    "again once some in_progress batches have been completed.",
    "param": None,
}


Plan = Callable[[int, dict[str, Any], dict[str, str]], Fault | None]


class FaultServer:
    """Use as a context manager; ``url`` is its address."""

    def __init__(
        self,
        plan: Plan | None = None,
        script: str = "longer",
        handler: Handler | None = None,
        delay: float = 0.0,
        logprobs: bool = True,
    ) -> None:
        self.plan, self.script, self.handler, self.delay, self.logprobs = plan, script, handler, delay, logprobs
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: list[str] = []
        """the user messages that were answered with a verdict"""
        self.in_flight = self.most_in_flight = self.connections = 0

    def __enter__(self) -> FaultServer:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(first, headers, content, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def _answer(self, first: str, headers: dict[str, str], content: bytes, writer: asyncio.StreamWriter) -> bool:
        method, path, _ = first.split(" ", 2)
        body = json.loads(content) if content.startswith(b"{") else {"raw": content.decode("utf-8", "replace")}
        if self.handler and (special := self.handler(method, path, body)):
            return await _send(writer, special[0], special[1])
        number = len(self.seen)
        self.seen.append(body)
        self.headers.append(headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            fault = self.plan(number, body, headers) if self.plan else None
            if fault is None:
                self.answered.append(body["messages"][-1]["content"])
                return await _send(writer, 200, self.reply(path, body))
            return await self._fail(fault, path, body, writer)
        finally:
            self.in_flight -= 1

    async def _fail(self, fault: Fault, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if fault.silent:
            await asyncio.sleep(fault.silent)
        if fault.hang_up:
            return False
        if fault.status:
            return await _send(writer, fault.status, fault.body or {"error": {"message": "no"}}, fault.headers)
        content = fault.raw if fault.raw is not None else json.dumps(self.reply(path, body)).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode())
        if fault.truncate:
            writer.write(content[: len(content) // 2])
            await writer.drain()
            return False
        if not fault.seconds_a_byte:
            writer.write(content)
            await writer.drain()
            return True
        for i in range(len(content)):
            writer.write(content[i : i + 1])
            await writer.drain()
            await asyncio.sleep(fault.seconds_a_byte)
        return True

    def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer in the form of the API that was asked."""
        asked = {m["role"]: m["content"] for m in body["messages"]}
        said = SCRIPTS[self.script](Request(body["model"], str(body.get("system", "")), asked["user"], 100))
        text = said if isinstance(said, str) else said.text
        refused = not isinstance(said, str) and said.finish == "refusal"
        if path.endswith("/messages"):
            return {
                "id": "m", "type": "message", "role": "assistant", "model": body["model"] + "-20260101",
                "content": [{"type": "text", "text": text}], "stop_reason": "refusal" if refused else "end_turn",
                "usage": {"input_tokens": 100, "output_tokens": 5},
            }  # fmt: skip
        logprobs = None
        if body.get("logprobs") and self.logprobs and text in ("1", "2"):
            other = "2" if text == "1" else "1"
            listed = [
                {"token": text, "logprob": -0.1},
                {"token": other, "logprob": -2.5},
                {"token": "x", "logprob": -9},
            ]
            logprobs = {"content": [{**listed[0], "top_logprobs": listed}]}
        message = {"role": "assistant", "content": None if refused else text, "refusal": text if refused else None}
        return {
            "id": "c", "object": "chat.completion", "created": 1, "model": body["model"] + "-2026-01-01",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
        }  # fmt: skip


async def _send(writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None) -> bool:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(content)}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    await writer.drain()
    return True
