"""One question to a language model and its answer: what every backend takes and gives.

A backend raises one of the failures below, or :class:`farm.base.errors.UserError` when no further question can succeed
(a wrong key, an unknown model); everything else that goes wrong inside it is a defect. None of them ever carries a key.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from farm.base.addresses import KEY_VARIABLES

Finish = Literal["stop", "length", "refusal", "unreadable"]
"""unreadable: the server answered what no answer can be; it is kept, so that it is not asked for again"""
UNKNOWN = 2**40
"""tokens, where a server says no number that can be one: more than any question has (see ``question.bounded``)"""


@dataclass(frozen=True)
class Request:
    """Everything that determines an answer, apart from the server it is sent to."""

    model: str
    """the name the server knows it by, without the provider"""
    system: str
    user: str
    max_tokens: int
    temperature: float | None = None
    """None leaves it to the server: some models accept no temperature"""
    labels: tuple[str, ...] = ()
    """ask for the log-probabilities of these as the first token of the answer"""
    schema: dict[str, Any] | None = None
    """ask for JSON of this schema"""
    effort: str | None = None
    """reasoning effort, for models that reason"""
    seed: int = 0
    replicate: int = 0
    thinking: int = 0
    """tokens of ``max_tokens`` that are room to think; 0: thinking is turned off where that can be said"""
    extra: Mapping[str, Any] | None = None
    """further fields of the request to a server"""
    allowed: int | None = None
    """tokens of an answer that money is set aside for: a backend raises :class:`Adapted` before it asks for more"""

    def plain(self) -> dict[str, Any]:
        """As plain data, for a content address."""
        return {k: v for k, v in vars(self).items() if k != "allowed" and (v or k not in ("thinking", "extra"))}


@dataclass(frozen=True)
class Completion:
    """What the model said."""

    text: str
    labels: dict[str, float] | None = None
    """log-probability of each label as the first token, an upper bound where the server did not list it
    (annotators/llm/labels.py). None: the server gives none"""
    mass: float | None = None
    """probability that the first token was one of the labels"""
    input_tokens: int = 0
    """all of them; the next two are among them and priced otherwise"""
    output_tokens: int = 0
    finish: Finish = "stop"
    model: str = ""
    """the model and version that answered, as the server says"""
    cached_tokens: int = 0
    """input tokens that the provider had in its cache"""
    written_tokens: int = 0
    """input tokens that the provider wrote to its cache"""


class Backend(Protocol):
    """Somewhere a model can be asked."""

    @property
    def concurrency(self) -> int:
        """How many questions it can take at once with profit."""

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None: ...


@runtime_checkable
class Server(Backend, Protocol):
    """A backend of a foreign program: its count of tokens is bounded by what was requested."""

    def most(self, request: Request) -> int:
        """Tokens of an answer that are asked for at most, as the server is known by now."""


class Failure(Exception):
    """This question failed."""


class Failed(Failure):
    """For good: the same question would fail again."""


class Unreadable(Failure):
    """The server answered, and asking again would bring the like: a text of 100 MB, JSON 200,000 deep."""


class Adapted(Exception):
    """The backend asks for more tokens from now on: nothing is paid yet, and money is to be set aside anew."""


class TryAgain(Failure):
    """For now. ``after`` is the wait in seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None, charged: bool = False, connected: bool = True) -> None:
        super().__init__(reason)
        self.after = after
        self.charged = charged
        """the model may have worked, and the provider charged for it"""
        self.connected = connected


class QuotaSpent(Failure):
    """The account has no credit or quota left: nothing is wrong with the question."""


def tokens(value: object) -> int:
    """A number of tokens as a server says it: never negative, :data:`UNKNOWN` where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return UNKNOWN
    if isinstance(value, float) and not math.isfinite(value):
        return UNKNOWN
    return min(max(int(value), 0), UNKNOWN)


def unreadable(why: Failure) -> Completion:
    """What is kept of an unreadable answer: the reason, and that its cost is unknown."""
    return Completion(str(why), input_tokens=UNKNOWN, output_tokens=UNKNOWN, finish="unreadable")


def printable(text: str) -> str:
    """A text that can be stored and encoded: U+FFFD for what is half of a character."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SECRET = re.compile(r"\b(sk|pk|key|Bearer|Basic|xai|gsk|hf)[-_ ][A-Za-z0-9_\-*.=+/]{6,}", re.IGNORECASE)


def redacted(text: str, limit: int = 300) -> str:
    """A server's message without anything that is, or looks like, a key; one line of at most ``limit`` characters."""
    for name, value in os.environ.items():
        secret = name in KEY_VARIABLES or any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
        if secret and len(value) >= 6:
            text = text.replace(value, "[key]")
    text = printable(_SECRET.sub("[key]", " ".join(_CONTROLS.sub(" ", text).split())))
    return text if len(text) <= limit else text[: limit - 1] + "…"
