"""A question to a model, its content address, and what became of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from annotators.llm.backends import where
from annotators.llm.completion import Completion, Request
from farm.storage.store import address

KIND = "llm answer"
FLOOR = 16
"""tokens that the limit of an answer must at least allow at OpenAI's"""
_OVERHEAD = 128
"""tokens that a server's chat template may add to a question, for the worst case of its cost"""


@dataclass(frozen=True)
class Question:
    """A request and where it goes."""

    provider: str
    base_url: str | None
    request: Request
    rows: int = 1
    """how many rows the answer serves"""
    key_from: str | None = None
    """the environment variable of the address's key; by default the provider's where that may go"""

    def key(self) -> bytes:
        """The content address of the answer."""
        return address(KIND, self.provider, where(self.provider, self.base_url), self.request.plain())


@dataclass(frozen=True)
class Answer:
    """What became of a question."""

    completion: Completion | None = None
    failure: str = ""
    """why there is no completion"""
    asked: bool = True
    """False: not asked, because the budget is spent or the run is dry"""
    cached: bool = False
    price: float = 0.0
    seconds: float = 0.0


def status_of(answer: Answer, readable: bool) -> str:
    """What the column ``status`` says of an answer, ``readable`` where what was asked for could be read from it."""
    if not answer.asked:
        return "unobserved"
    if answer.completion is None:
        return "error"
    if answer.completion.finish == "refusal":
        return "refused"
    return "ok" if readable else "unparseable"


def expected_tokens(request: Request) -> int:
    """Expected input tokens: about four bytes of English a token."""
    return (len(request.system) + len(request.user)) // 4 + 16


def most_input(request: Request) -> int:
    """The most input tokens a question can have: a token has at least one byte."""
    plain = "".join(json.dumps(part, ensure_ascii=False) for part in (request.schema, request.extra) if part)
    return len((request.system + request.user + plain).encode("utf-8", "replace")) + _OVERHEAD


def bounded(completion: Completion, request: Request, most_output: int) -> Completion:
    """The completion with no more tokens than were asked for at most, whatever the server says."""
    given = min(completion.input_tokens, most_input(request))
    cached = min(completion.cached_tokens, given)
    return replace(
        completion,
        input_tokens=given,
        output_tokens=min(completion.output_tokens, most_output),
        cached_tokens=cached,
        written_tokens=min(completion.written_tokens, given - cached),
    )


def stored(value: dict[str, Any]) -> Answer:
    """The answer that a row of the store holds. Raises ValueError, TypeError for a row of another version."""
    known = dict(value)
    cost, seconds = float(known.pop("price", 0.0)), float(known.pop("seconds", 0.0))
    cost = cost if 0 <= cost < math.inf else 0.0  # an old store may hold what a server claimed
    completion = Completion(**known)
    if not isinstance(completion.text, str):
        raise TypeError("an answer has a text")
    return Answer(completion, cached=True, price=cost, seconds=seconds)
