"""Requests that arrive one by one, answered in batches by a model in this process.

While one batch is being answered, in a thread of its own, the next gathers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from annotators.llm.completion import Completion, Request
from farm.policies.conversation import as_data


class Batcher:
    """Gathers requests for a function that answers many at once."""

    def __init__(self, answer: Callable[[Sequence[Request]], list[Completion]], most: int) -> None:
        self._answer = answer
        self._most = most
        self._waiting: list[tuple[Request, asyncio.Future[Completion]]] = []
        self._task: asyncio.Task[None] | None = None

    async def complete(self, request: Request) -> Completion:
        """The answer to one request, computed in a batch with others that wait."""
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        await asyncio.sleep(0.001)  # requests that come at the same time gather
        while self._waiting:
            part, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await asyncio.to_thread(self._answer, [request for request, _ in part])
            except Exception as error:
                for _, done in part:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), answer in zip(part, answers, strict=True):
                if not done.done():
                    done.set_result(answer)
            await asyncio.sleep(0.001)


def turns(request: Request, special: Sequence[str]) -> list[dict[str, str]]:
    """The conversation for a chat template. What is judged spells out no ``special`` token that could end a turn."""
    said = (("system", request.system), ("user", request.user))
    return [{"role": role, "content": as_data(text, special)} for role, text in said if text or role == "user"]
