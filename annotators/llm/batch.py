"""Provider batches: questions submitted together, answered within a day, at half the price.

One step of a batch run collects the batches that are ready and submits the questions that are in none:

    not answered, in no batch   ─▶ submitted; the batch's id is committed to the store at once
    in a batch that runs        ─▶ left alone: the row is unobserved for now
    in a batch that has ended   ─▶ its answer goes to the store under the same key as if it had been asked directly

Before a batch is submitted, the intention is committed: a mark, the time and the number of questions. Where a process
ends between the provider's reply and the commit of the id, the next run finds the mark without an id, looks for the
batch among the provider's (OpenAI's carry the mark as metadata; Anthropic's are recognised by time and number), and
takes it over instead of paying twice.

So the same command, run again, goes on: it never submits a question that is in a running batch, whoever submitted it,
and a run without batches finds the answers too. A question that failed or expired in a batch may be submitted again,
``ATTEMPTS`` times in all. What is no failure of the question costs no attempt: a queue that was full (then no more is
submitted at a time than it holds), and a parameter that the model does not take (which is left out from then on).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotators.llm.backends.batches import BatchBackend, Lost
from annotators.llm.claims import Claims
from annotators.llm.completion import Completion, Request
from annotators.llm.prices import Price
from annotators.llm.question import bounded, most_input
from farm.asking.limits import NO_ROOM
from farm.base.progress import note
from farm.storage.store import Entry, Store, address

DISCOUNT = 0.5
ATTEMPTS = 3
MOST, LARGEST = 10_000, 190_000_000
"""Questions and bytes in one batch; providers take 50,000 (OpenAI) and 100,000 (Anthropic), and at most 200 MB."""
_LINE = 256
"""bytes of a line beside the request"""
_QUEUE_FULL = "the provider's queue is full; the same command submits more when there is room"

Failed = Mapping[bytes, Sequence[dict[str, Any]]]
"""how each question's earlier attempts ended"""


class Batches:
    """The batches of one run with one backend."""

    def __init__(self, backend: BatchBackend, store: Store, price: Price | None) -> None:
        self._backend, self._store, self._price = backend, store, price
        self._learnt: dict[tuple[str, str], bool] = {}

    async def step(
        self, questions: dict[bytes, Request], room: float | None
    ) -> tuple[dict[bytes, Completion], dict[bytes, str], dict[bytes, str]]:
        """Collect and submit. Returns (answers, failures, where the others wait) by key.

        ``room`` is what may still be spent, US dollars: what does not fit is not submitted.
        """
        running, failed = self._standing(list(questions))
        for refused in sorted((f for fs in failed.values() for f in fs if f.get("about")), key=lambda f: f["at"]):
            self._learn(refused["batch"], refused["about"])  # a run forgets when it ends
        answers, failures = await self._collect(running, questions)
        running, failed = self._standing([key for key in questions if key not in answers])
        waiting = {k: f"in batch {b}, which runs" for k, b in running.items()}
        if room is not None:
            room -= sum(self._worst(questions[key]) for key in waiting)
        to_submit: dict[bytes, Request] = {}
        for key, request in questions.items():
            if key in running or key in answers or key in failures:
                continue
            counted = [f for f in failed[key] if not f.get("free")]
            if len(counted) >= ATTEMPTS:
                failures[key] = str(counted[-1]["failure"])
                continue
            worst = self._worst(request)
            if room is not None and worst > room + 1e-12:
                waiting[key] = NO_ROOM
                continue
            room = None if room is None else room - worst
            to_submit[key] = request
        limits = [int(f["queue"]) for fs in failed.values() for f in fs if f.get("queue")]
        queue = min(limits) - sum(_queued(questions[key]) for key in running) if limits else None
        waiting |= await self._submit(to_submit, failed, queue, idle=not running)
        return answers, failures, waiting

    def _worst(self, request: Request) -> float:
        most = self._backend.most(request)
        return self._price.at_most(most_input(request), most) * DISCOUNT if self._price else 0.0

    def _learn(self, batch: str, about: str) -> bool:
        """Have the backend leave out what lines of a batch were refused for; once, however many say so."""
        same = (batch, re.sub(r"\d+", "0", about))
        if same not in self._learnt:
            self._learnt[same] = self._backend.adapt(about)
        return self._learnt[same]

    def _standing(self, keys: Sequence[bytes]) -> tuple[dict[bytes, str], dict[bytes, list[dict[str, Any]]]]:
        """Which key is in which batch, and how its earlier attempts ended."""
        running: dict[bytes, str] = {}
        failed: dict[bytes, list[dict[str, Any]]] = {key: [] for key in keys}
        left, attempt = list(keys), 0
        while left:
            found = self._store.get([at(k, attempt) for k in left for at in (_member, _failure)])
            ended = [key for key in left if _failure(key, attempt) in found]
            for key in left:
                if (member := found.get(_member(key, attempt))) is not None:
                    running[key] = str(member["batch"])
            for key in ended:
                failed[key].append(found[_failure(key, attempt)])
                running.pop(key, None)
            left, attempt = ended, attempt + 1
        return running, failed

    async def _collect(
        self, running: dict[bytes, str], questions: dict[bytes, Request]
    ) -> tuple[dict[bytes, Completion], dict[bytes, str]]:
        """Answers, and why there are none, of batches that have ended. What is to be submitted again is in neither."""
        by_batch: dict[str, list[bytes]] = defaultdict(list)
        for key, batch in running.items():
            by_batch[batch].append(key)
        answers: dict[bytes, Completion] = {}
        failures: dict[bytes, str] = {}
        for batch, keys in by_batch.items():
            ended = await self._backend.collect(batch)
            if ended is None:
                continue
            entries, failed_entries, asked = [], [], [questions[key] for key in keys]
            _, failed = self._standing(keys)
            for key in keys:
                said = ended.said.get(key.hex())
                if isinstance(said, Completion):
                    answers[key] = said = bounded(said, questions[key], self._backend.most(questions[key]))
                    cost = self._price.of(said) * DISCOUNT if self._price else 0.0
                    value = {**vars(said), "seconds": 0.0, "price": cost}
                    entries.append(Entry(key, value, said.input_tokens, said.output_tokens, cost))
                    continue
                learnt = isinstance(said, Lost) and bool(said.about) and self._learn(batch, said.about)
                failure = {
                    "failure": said.why if said else ended.why,
                    "batch": batch,
                    "at": time.time(),
                    "free": learnt or (said is None and ended.free),
                    "about": said.about if said and learnt else "",
                    "queue": (ended.queue or sum(map(_queued, asked)) // 2) if said is None and ended.free else None,
                }
                failed_entries.append(Entry(_failure(key, len(failed[key])), failure))
                if not (learnt or (said is None and ended.again)):
                    failures[key] = str(failure["failure"])
            self._store.put("llm answer", entries)
            self._store.put("llm batch failure", failed_entries)
            if len(entries) < len(keys) and not ended.said:
                note(ended.why)
        return answers, failures

    async def _submit(
        self, to_submit: dict[bytes, Request], failed: Failed, queue: int | None, idle: bool
    ) -> dict[bytes, str]:
        """Submit what fits into the provider's ``queue``, input tokens; if nothing of ours is in it, one question at
        least. Where all wait, by key."""
        waiting: dict[bytes, str] = {}
        claims, claim = Claims.beside(self._store.path), address("handing in batches")
        while not claims.take(claim):
            await asyncio.sleep(0.1)
        try:
            running, _ = self._standing(list(to_submit))  # another process may have been quicker
            waiting |= {key: f"in batch {batch}, which runs" for key, batch in running.items()}
            left = [key for key in to_submit if key not in running]
            waiting |= await self._taken_over(left, failed)
            keys: list[bytes] = []
            for key in (key for key in left if key not in waiting):
                if queue is not None and (tokens := _queued(to_submit[key])) > queue and (keys or not idle):
                    waiting[key] = _QUEUE_FULL
                    continue
                queue = None if queue is None else queue - tokens
                keys.append(key)
            for part in self._parts(keys, to_submit):
                mark = address("batch", [key.hex() for key in part], time.time()).hex()
                plan = {"mark": mark, "since": time.time(), "count": len(part)}
                self._store.put("llm batch intended", [Entry(_intention(k, len(failed[k])), plan) for k in part])
                batch = await self._backend.submit({key.hex(): to_submit[key] for key in part}, mark)
                self._commit(part, failed, batch)
                waiting |= dict.fromkeys(part, f"in batch {batch}, which runs")
                note(f"submitted batch {batch} with {len(part):,} questions; the same command collects its answers")
        finally:
            claims.release(claim)
        return waiting

    def _parts(self, keys: Sequence[bytes], requests: dict[bytes, Request]) -> Iterator[list[bytes]]:
        """The keys in parts that a provider takes as one batch."""
        part: list[bytes] = []
        size = 0
        for key in keys:
            line = len(json.dumps(self._backend.body(requests[key]))) + _LINE
            if part and (len(part) == MOST or size + line > LARGEST):
                yield part
                part, size = [], 0
            part.append(key)
            size += line
        if part:
            yield part

    async def _taken_over(self, keys: list[bytes], failed: Failed) -> dict[bytes, str]:
        """Questions that an earlier process submitted but ended before it noted the batch; where they wait, by key."""
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

    def _commit(self, part: Sequence[bytes], failed: Failed, batch: str) -> None:
        self._store.put("llm batch", [Entry(_member(key, len(failed[key])), {"batch": batch}) for key in part])


def _queued(request: Request) -> int:
    """Input tokens as a provider's queue may count them: three bytes each, which is rather too many."""
    return most_input(request) // 3


def _intention(key: bytes, attempt: int) -> bytes:
    return address("intended batch of", key.hex(), attempt)


def _member(key: bytes, attempt: int) -> bytes:
    return address("batch of", key.hex(), attempt)


def _failure(key: bytes, attempt: int) -> bytes:
    return address("failure in a batch of", key.hex(), attempt)
