"""Answers on their way to the store."""

from __future__ import annotations

import asyncio

from annotators.llm.question import KIND
from farm.storage.store import Entry, Store


class Writer:
    """Commits answers as they come; those that come during a commit go together into the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, entry: Entry) -> None:
        """Return when the entry is committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        while self._waiting:
            part, self._waiting = self._waiting, []
            try:
                self._store.put(KIND, [entry for entry, _ in part])
            except Exception as error:
                for _, done in part:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, done in part:
                if not done.done():
                    done.set_result(None)
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Commit what is left."""
        if self._task is not None:
            await self._task
        await self._drain()
