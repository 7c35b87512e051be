"""A run: many questions to models, each answer stored the moment it comes, none paid for twice.

Outside it is synchronous: :meth:`Session.ask` takes questions and gives answers. Inside, one event loop in a thread of
its own keeps one client for each server for the whole run, whether or not the caller runs a loop.

    look up the store ─▶ (each missing question) ─▶ rate limits ─▶ budget ─▶ gate ─▶ backend ─▶ store ─▶ answer

A worker takes its next question only when the last answer is committed, so that killing the process loses at most the
questions in flight. A question is claimed before it is sent, and the store asked once more: two processes with one
store share the work instead of doing it twice.

An answer's content address has the provider, the server's address, and everything in the request (model, prompt,
sampling parameters, texts in their order, seed, replicate). Parsers are not in it: stored answers are read anew.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotators.llm.backends import connect, where
from annotators.llm.backends.batches import BatchBackend
from annotators.llm.batch import DISCOUNT, Batches
from annotators.llm.claims import Claims
from annotators.llm.completion import Adapted, Failure, Server
from annotators.llm.line import Line
from annotators.llm.prices import Price, price
from annotators.llm.question import Answer, Question, bounded, expected_tokens, most_input, stored
from annotators.llm.tally import Tally
from annotators.llm.writer import Writer
from farm.asking import purse as purses
from farm.asking.limits import NO_ROOM, Limits, OverBudget
from farm.asking.purse import Purse, limited
from farm.base import progress
from farm.base.errors import UserError, cause
from farm.storage.store import Entry, Store, home


class Session:
    """A run of questions with its limits. Use it through :func:`session`; without one, there is a default."""

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.limits, self.ledger = purse.limits, purse.ledger
        self.tally = Tally()
        self._lines: dict[tuple[str, str, str, str | None], Line] = {}
        self._batches: dict[tuple[Any, Path], Batches] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="language models", daemon=True)
        self._thread.start()

    def ask(self, questions: Sequence[Question], store: Store | None = None) -> list[Answer]:
        """The answers, in order. Equal questions are asked once.

        Raises:
            OverBudget: when the budget has no room for all of them, and the limits want all or none.
            UserError: when no further question can succeed: a wrong key, an unknown model, nothing at the address.
        """
        task = asyncio.run_coroutine_threadsafe(self._run(questions, store or default_store()), self._loop)
        try:
            return task.result()
        except CancelledError:
            raise UserError("the run was stopped; what is done is kept") from None
        except BaseException:  # Ctrl-C in the calling thread: stop the questions, keep what is stored
            task.cancel()
            raise

    def close(self) -> None:
        """Close the clients and end the thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
            if not self._thread.is_alive():
                self._loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # cancelled by Ctrl-C; the loop must not end before them
            await asyncio.wait(others, timeout=5)
        for line in self._lines.values():
            await line.backend.close()

    async def _run(self, questions: Sequence[Question], store: Store) -> list[Answer]:
        keys = [q.key() for q in questions]
        todo = dict(zip(keys, questions, strict=True))
        answers: dict[bytes, Answer] = {}
        for key, answer in store.get(list(todo), stored).items():
            answers[key] = self._known(key, answer)
        before = None if self.limits.dry_run else progress.active()
        for key, answer in answers.items():
            self._count(todo[key], answer, before)
        missing = [(key, question) for key, question in todo.items() if key not in answers]
        if self.limits.dry_run:
            for key, question in missing:
                answers[key] = self._estimate(question)
        elif missing and self.limits.batches:
            await self._batch_all(missing, answers, store, before)
        elif missing:
            await self._ask_all(missing, answers, store, before)
        if self.limits.whole and (unasked := [question for key, question in missing if not answers[key].asked]):
            raise OverBudget(sum(self._likely(question)[1] for question in unasked))
        return [answers[key] for key in keys]

    async def _ask_all(
        self, missing: list[tuple[bytes, Question]], answers: dict[bytes, Answer], store: Store, shown: Any
    ) -> None:
        lines = [self._line(question) for question in {_place(q): q for _, q in missing}.values()]
        queue: Iterator[tuple[bytes, Question]] = iter(missing)
        elsewhere: list[tuple[bytes, Question]] = []
        claims = Claims.beside(store.path)
        writer = Writer(store)
        workers = min(len(missing), self._concurrency(lines))

        async def work() -> None:
            for key, question in queue:
                await claimed(key, question)
            while elsewhere:
                key, question = elsewhere.pop()
                await claimed(key, question)
                if elsewhere and key == elsewhere[-1][0]:
                    await asyncio.sleep(0.05)

        async def claimed(key: bytes, question: Question) -> None:
            if not claims.take(key):  # another process is asking; come back for its answer
                elsewhere.append((key, question))
                return
            try:
                answer = await self._one(key, question, store, writer)
            finally:
                claims.release(key)
            answers[key] = answer
            self._count(question, answer, shown)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        except BaseExceptionGroup as several:
            raise cause(several) from None
        finally:
            await writer.finish()

    async def _batch_all(
        self, missing: list[tuple[bytes, Question]], answers: dict[bytes, Answer], store: Store, shown: Any
    ) -> None:
        for place, one in {_place(q): q for _, q in missing}.items():
            line = self._line(one)
            if not isinstance(line.backend, BatchBackend):
                raise UserError(f"{place[0]}/{place[2]} takes no batches: they are for openai and anthropic")
            left = {k: q for k, q in missing if _place(q) == place}
            batches = self._batches.setdefault((place, store.path), Batches(line.backend, store, line.price))
            started = time.monotonic()
            while True:
                room = None if self.ledger.budget is None else self.ledger.budget - self.ledger.spent
                try:
                    said, failed, waiting = await batches.step({k: q.request for k, q in left.items()}, room)
                except Failure as error:
                    raise UserError(f"{error}; what is submitted is kept, and the same command goes on") from None
                for key, completion in said.items():
                    half = DISCOUNT * line.price.of(completion) if line.price else 0.0
                    self.ledger.known(key, half)
                    answers[key] = Answer(completion, price=half)
                answers.update({key: Answer(failure=reason) for key, reason in failed.items()})
                for key in said.keys() | failed.keys():
                    self._count(left.pop(key), answers[key], shown)
                if not left or time.monotonic() - started >= self.limits.batch_patience:
                    break
                await asyncio.sleep(min(self.limits.longest_wait, self.limits.batch_patience))
            for key, question in left.items():
                answers[key] = Answer(asked=False, failure=waiting[key])
                self._count(question, answers[key], shown)

    def _concurrency(self, lines: Sequence[Line]) -> int:
        return self.limits.concurrency or max(line.backend.concurrency for line in lines)

    async def _one(self, key: bytes, question: Question, store: Store, writer: Writer) -> Answer:
        line, request = self._line(question), question.request
        if key in (found := store.get([key], stored)):  # another process was quicker
            return self._known(key, found[key])
        started = time.monotonic()
        while True:
            server = line.backend if isinstance(line.backend, Server) else None
            most = server.most(request) if server else request.max_tokens
            worst = line.price.at_most(most_input(request), most) if line.price else 0.0
            if not await self.ledger.reserve(worst):
                return Answer(asked=False, failure=NO_ROOM)
            spent = lost = 0.0
            try:
                completion, charged = await line.ask(replace(question, request=replace(request, allowed=most)))
                lost = charged * (line.price.likely(expected_tokens(request), most) if line.price else 0.0)
                if isinstance(completion, str):
                    return Answer(failure=completion, seconds=time.monotonic() - started)
                if server:
                    completion = bounded(completion, request, most)
                spent = line.price.of(completion) if line.price else 0.0
                break
            except Adapted:
                continue
            finally:
                self.ledger.settle(worst, spent, lost)
        self.ledger.counted[key] = spent
        seconds = time.monotonic() - started
        value = {**vars(completion), "seconds": round(seconds, 4), "price": spent}
        await writer.write(Entry(key, value, completion.input_tokens, completion.output_tokens, spent))
        return Answer(completion, price=spent, seconds=seconds)

    def _known(self, key: bytes, answer: Answer) -> Answer:
        """A stored answer. The budget is for all that a run's questions cost, whenever it was paid."""
        self.ledger.known(key, answer.price)
        return answer

    def _line(self, question: Question) -> Line:
        place = _place(question)
        if place not in self._lines:
            provider, address, name, key = place
            cost = self._price(provider, name, address)
            self._lines[place] = Line(connect(provider, name, question.base_url, key), cost, self.limits, self.tally)
        return self._lines[place]

    def _price(self, provider: str, name: str, url: str) -> Price | None:
        cost = price(provider, name, url)
        if cost is None:
            how = "name it in a file of your own prices (FARM_PRICES; configs/prices.yaml shows the form)"
            if self.limits.budget is not None:
                raise UserError(f"no price is known for {provider}/{name}, so a budget cannot be kept: {how}")
            self.tally.unpriced.add(f"{provider}/{name}")
            progress.note(f"no price is known for {provider}/{name}, its cost is counted as 0: {how}")
        return cost

    def _likely(self, question: Question) -> tuple[int, float]:
        """Input tokens and US dollars that a question will take, about."""
        place = where(question.provider, question.base_url)
        cost = self._price(question.provider, question.request.model, place) or Price(0, 0)
        tokens = expected_tokens(question.request)
        return tokens, cost.likely(tokens, question.request.max_tokens)

    def _estimate(self, question: Question) -> Answer:
        tokens, dollars = self._likely(question)
        self.purse.estimate += dollars
        self.tally.questions += 1
        self.tally.unasked += 1
        self.tally.input_tokens += tokens
        self.tally.output_tokens += question.request.max_tokens
        self.tally.cost += dollars
        self.tally.models.add(f"{question.provider}/{question.request.model}")
        return Answer(asked=False, failure="a dry run", price=dollars)

    def _count(self, question: Question, answer: Answer, shown: Any) -> None:
        self.tally.count(answer)
        if shown is not None:
            failed = f"{self.tally.failed} failed" if self.tally.failed else ""
            shown.advance(question.rows, 0.0 if answer.cached else answer.price, failed)


def _place(question: Question) -> tuple[str, str, str, str | None]:
    """Provider, address, model, and the variable of the key: where a question goes, and how."""
    address = where(question.provider, question.base_url)
    return question.provider, address, question.request.model, question.key_from


_stores: dict[str, Store] = {}
_default: Purse | None = None


def default_store() -> Store:
    """The store in the program's home."""
    path = str(home() / "store.sqlite")
    if path not in _stores:
        _stores[path] = Store(path)
    return _stores[path]


@contextmanager
def session(limits: Limits | None = None, rehearsal: Callable[[], object] | None = None) -> Iterator[Session]:
    """One run: everything asked inside the block shares limits, budget, clients and tally.

    With a budget, ``rehearsal`` asks what the run will ask, so that what is in the store already is counted before
    anything is paid for; it runs in a session that asks nobody.
    """
    with limited(limits) as purse:
        if rehearsal is not None and purse.limits.budget is not None:
            purse.rehearse(rehearsal)
        yield purse.kept(Session)


def current() -> Session:
    """The run under way, or a default one without limits."""
    global _default
    if (purse := purses.current()) is not None:
        return purse.kept(Session)
    if _default is None:
        _default = Purse()
        atexit.register(_default.close)
    return _default.kept(Session)
