"""Provider batches: questions handed in together, answered within a day, at half the price.

One step of a batch run collects what is ready and hands in what is not yet in any batch:

    not answered, in no batch   ─▶ handed in; the batch's id is committed to the store at once
    in a batch that runs        ─▶ left alone: the row is unobserved for now
    in a batch that has ended   ─▶ its answer goes to the store under the same key as if it had been asked directly

Before a batch is handed in, the intention is committed: a mark, the time and the number of questions. Where a process
ends between the provider's reply and the commit of the id, the next run finds the mark without an id, looks for the
batch among the provider's (OpenAI's carry the mark as metadata; Anthropic's are told by time and number), and takes it
over instead of paying twice.

So the same command, run again, goes on: it never hands in a question that is in a running batch, whoever submitted it,
and a run without batches finds the answers too. A question that failed or expired in a batch may be handed in again,
``ATTEMPTS`` times in all.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from annotators.llm.claims import Claims
from annotators.llm.completion import Completion, Request
from annotators.llm.prices import Price
from farm.progress import note
from farm.store import Entry, Store, address

DISCOUNT = 0.5
ATTEMPTS = 3
MOST = 10_000
"""Questions in one batch; providers take 50,000 (OpenAI) and 100,000 (Anthropic), and at most 200 MB."""


@runtime_checkable
class BatchBackend(Protocol):
    """A backend whose provider takes batches."""

    async def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Hand in requests by id; the id of the batch."""

    async def find(self, mark: str, since: float, count: int) -> str | None:
        """The id of the batch that was handed in with this mark, ``count`` requests, not before ``since`` (seconds)."""

    async def collect(self, batch: str) -> dict[str, Completion | str] | None:
        """Answers (or why there is none) by id; None while the batch runs."""


class Batches:
    """The batches of one run with one backend."""

    def __init__(self, backend: BatchBackend, store: Store, price: Price | None) -> None:
        self._backend, self._store, self._price = backend, store, price

    async def step(
        self, questions: dict[bytes, Request], room: float | None
    ) -> tuple[dict[bytes, Completion], dict[bytes, str], dict[bytes, str]]:
        """Collect and hand in. Returns (answers, failures, where the others wait) by key.

        ``room`` is what may still be spent, US dollars: what does not fit is not handed in.
        """
        running, failed = self._standing(list(questions))
        answers, failures = await self._collect(running)
        waiting = {k: f"in batch {b}, which runs" for k, b in running.items() if k not in answers and k not in failures}
        if room is not None:
            room -= sum(self._worst(questions[key]) for key in waiting)
        hand_in: dict[bytes, Request] = {}
        for key, request in questions.items():
            if key in running:
                continue
            if len(failed[key]) >= ATTEMPTS:
                failures[key] = failed[key][-1]
                continue
            worst = self._worst(request)
            if room is not None and worst > room + 1e-12:
                waiting[key] = "the budget is spent"
                continue
            room = None if room is None else room - worst
            hand_in[key] = request
        waiting |= await self._submit(hand_in, failed)
        return answers, failures, waiting

    def _worst(self, request: Request) -> float:
        size = len(request.system.encode()) + len(request.user.encode()) + 128
        return self._price.of(size, request.max_tokens) * DISCOUNT if self._price else 0.0

    def _standing(self, keys: Sequence[bytes]) -> tuple[dict[bytes, str], dict[bytes, list[str]]]:
        """Which key is in which batch, and why it failed in earlier ones."""
        member = {_member(k, n): (k, n) for k in keys for n in range(ATTEMPTS)}
        failure = {_failure(k, n): (k, n) for k in keys for n in range(ATTEMPTS)}
        found = self._store.get([*member, *failure])
        failed: dict[bytes, list[str]] = {k: [] for k in keys}
        for address_, (key, _) in failure.items():
            if address_ in found:
                failed[key].append(str(found[address_]["failure"]))
        running = {
            key: str(found[address_]["batch"])
            for address_, (key, attempt) in member.items()
            if address_ in found and attempt == len(failed[key])
        }
        return running, failed

    async def _collect(self, running: dict[bytes, str]) -> tuple[dict[bytes, Completion], dict[bytes, str]]:
        by_batch: dict[str, list[bytes]] = defaultdict(list)
        for key, batch in running.items():
            by_batch[batch].append(key)
        answers: dict[bytes, Completion] = {}
        failures: dict[bytes, str] = {}
        for batch, keys in by_batch.items():
            ended = await self._backend.collect(batch)
            if ended is None:
                continue
            entries, failed_entries = [], []
            _, failed = self._standing(keys)
            for key in keys:
                said = ended.get(key.hex(), "the batch ended without an answer")
                if isinstance(said, str):
                    failures[key] = said
                    failed_entries.append(Entry(_failure(key, len(failed[key])), {"failure": said, "batch": batch}))
                    continue
                answers[key] = said
                cost = self._price.of(said.input_tokens, said.output_tokens) * DISCOUNT if self._price else 0.0
                value = {**vars(said), "seconds": 0.0, "price": cost}
                entries.append(Entry(key, value, said.input_tokens, said.output_tokens, cost))
            self._store.put("llm answer", entries)
            self._store.put("llm batch failure", failed_entries)
        return answers, failures

    async def _submit(self, hand_in: dict[bytes, Request], failed: dict[bytes, list[str]]) -> dict[bytes, str]:
        waiting: dict[bytes, str] = {}
        claims, claim = Claims.beside(self._store.path), address("handing in batches")
        while not claims.take(claim):
            await asyncio.sleep(0.1)
        try:
            running, _ = self._standing(list(hand_in))  # another process may have been quicker
            waiting |= {key: f"in batch {batch}, which runs" for key, batch in running.items()}
            left = [key for key in hand_in if key not in running]
            waiting |= await self._taken_over(left, failed)
            keys = [key for key in left if key not in waiting]
            for start in range(0, len(keys), MOST):
                part = keys[start : start + MOST]
                mark = address("batch", [key.hex() for key in part], time.time()).hex()
                plan = {"mark": mark, "since": time.time(), "count": len(part)}
                self._store.put("llm batch intended", [Entry(_intention(k, len(failed[k])), plan) for k in part])
                batch = await self._backend.submit({key.hex(): hand_in[key] for key in part}, mark)
                self._commit(part, failed, batch)
                waiting |= dict.fromkeys(part, f"in batch {batch}, which runs")
                note(f"handed in batch {batch} with {len(part):,} questions; the same command collects its answers")
        finally:
            claims.release(claim)
        return waiting

    async def _taken_over(self, keys: list[bytes], failed: dict[bytes, list[str]]) -> dict[bytes, str]:
        """Questions that an earlier process handed in without living to note the batch; where they wait, by key."""
        intentions = {_intention(key, len(failed[key])): key for key in keys}
        by_mark: dict[str, list[tuple[bytes, dict[str, Any]]]] = defaultdict(list)
        for address_, plan in self._store.get(list(intentions)).items():
            by_mark[plan["mark"]].append((intentions[address_], plan))
        waiting: dict[bytes, str] = {}
        for mark, members in by_mark.items():
            plan = members[0][1]
            batch = await self._backend.find(mark, float(plan["since"]), int(plan["count"]))
            if batch is not None:
                part = [key for key, _ in members]
                self._commit(part, failed, batch)
                waiting |= dict.fromkeys(part, f"in batch {batch}, which runs")
        return waiting

    def _commit(self, part: Sequence[bytes], failed: dict[bytes, list[str]], batch: str) -> None:
        self._store.put("llm batch", [Entry(_member(key, len(failed[key])), {"batch": batch}) for key in part])


def _intention(key: bytes, attempt: int) -> bytes:
    return address("intended batch of", key.hex(), attempt)


def _member(key: bytes, attempt: int) -> bytes:
    return address("batch of", key.hex(), attempt)


def _failure(key: bytes, attempt: int) -> bytes:
    return address("failure in a batch of", key.hex(), attempt)
