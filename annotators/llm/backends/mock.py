"""A scripted model: for tests, trial runs and examples. Free, instant, and open to new scripts.

``mock/longer`` prefers the longer output, ``mock/first`` the one shown first, and so on; a script is a function from a
request to a completion, entered with :func:`script`. A script sees what a model would see: the finished prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from annotators.llm.completion import Completion, Request
from annotators.llm.prompt import Shown, shown
from annotators.llm.verdicts import spoken
from farm.base import rng
from farm.base.errors import UserError, nearest

Script = Callable[[Request], Completion | str]
SCRIPTS: dict[str, Script] = {}


def script(name: str) -> Callable[[Script], Script]:
    """Enter a script under a name: the model ``mock/<name>``."""

    def enter(function: Script) -> Script:
        SCRIPTS[name] = function
        return function

    return enter


class Mock:
    """Answers by a script."""

    concurrency = 64

    def __init__(self, name: str, _: str | None = None) -> None:
        if name not in SCRIPTS:
            raise UserError(f"model mock/{name}: there is no such script; {nearest(name, SCRIPTS)}")
        self._script = SCRIPTS[name]

    async def complete(self, request: Request) -> Completion:
        said = self._script(request)
        if isinstance(said, Completion):
            return said
        words = len(request.system.split()) + len(request.user.split())
        return Completion(said, input_tokens=words, output_tokens=len(said.split()), model=f"mock/{request.model}")

    async def close(self) -> None:
        return None


def answer(request: Request, prefer: Callable[[Shown], int]) -> str:
    """An answer in the form the prompt asks for, preferring output 1 or 2 of each pair by ``prefer``."""
    pairs = shown(request.user)
    question = request.user.rsplit("</output_2>", 1)[-1]
    if '"preferred"' in question:
        entries = [{"pair": k, "preferred": prefer(pair)} for k, pair in enumerate(pairs, start=1)]
        return json.dumps({"verdicts": entries} if len(pairs) > 1 else entries[0])
    if "Verdict" in question:
        return spoken([prefer(pair) for pair in pairs])
    return " ".join(str(prefer(pair)) for pair in pairs)


@script("longer")
def _longer(request: Request) -> str:
    return answer(request, lambda pair: 1 if len(pair.first) >= len(pair.second) else 2)


@script("shorter")
def _shorter(request: Request) -> str:
    return answer(request, lambda pair: 1 if len(pair.first) <= len(pair.second) else 2)


@script("first")
def _first(request: Request) -> str:
    return answer(request, lambda pair: 1)


@script("coin")
def _coin(request: Request) -> str:
    def toss(pair: Shown) -> int:
        ids = (rng.text_id(pair.first), rng.text_id(pair.second), request.replicate)
        return int(rng.integers(2, request.seed, "mock coin", *ids)[0]) + 1

    return answer(request, toss)


@script("parrot")
def _parrot(request: Request) -> str:
    """Repeats all it was shown: whoever wins against it wins by injection."""
    pairs = shown(request.user)
    return "\n".join(text for pair in pairs for text in (pair.instruction, pair.first, pair.second))


@script("refuse")
def _refuse(_: Request) -> Completion:
    return Completion("I can't help with that.", finish="refusal", input_tokens=10, output_tokens=6)


@script("mumble")
def _mumble(_: Request) -> str:
    return "Both have their merits, it depends."
