"""The line to one server: limits, tries and waits between a question and its answer.

A try that failed for now (429, 5xx, a lost connection, an unreadable answer, no answer in time) is made again, after
growing waits, or when the server says so; then all questions on the line wait. A spent quota holds the line until it
has quota again. What no further try can mend stops the run (UserError), or fails this question alone.
"""

from __future__ import annotations

import asyncio

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from annotators.llm.completion import Backend, Completion, Failure, QuotaSpent, TryAgain
from annotators.llm.limits import Gate, Rate
from annotators.llm.prices import Price
from annotators.llm.question import Question, expected_tokens
from annotators.llm.tally import Tally
from farm.asking.limits import Limits
from farm.base.errors import UserError


class Line:
    """One server under load: its backend, its price, its gate and its rates."""

    def __init__(self, backend: Backend, price: Price | None, limits: Limits, tally: Tally) -> None:
        self.backend = backend
        self.price = price
        self.gate = Gate(limits)
        self._limits = limits
        self._tally = tally
        self._requests = Rate(limits.requests_per_minute)
        self._tokens = Rate(limits.tokens_per_minute)
        self._answered = False

    async def ask(self, question: Question) -> tuple[Completion | str, int]:
        """The completion or why there is none, and how many lost tries may have been charged."""
        charged = 0
        wait = wait_random_exponential(self._limits.shortest_wait, self._limits.longest_wait)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, TryAgain) and self.gate.held(error):  # the server wants to be left alone by all
                return 0.0
            return wait(state)

        try:
            return await self._attempt(question), charged
        except TryAgain as error:
            charged += error.charged
            self._tally.retried += 1
            asked_to_wait = self.gate.held(error)
        except Failure as error:
            return str(error), charged
        counted = 1

        def enough(state: RetryCallState) -> bool:
            nonlocal counted
            error = state.outcome.exception() if state.outcome else None
            if not (isinstance(error, TryAgain) and (error.after or 0.0) >= self._limits.shortest_wait):
                counted += 1  # to wait as the server asks is no failed try, within reason
            return counted >= self._limits.attempts or state.attempt_number >= 20 * self._limits.attempts

        tries = AsyncRetrying(retry=retry_if_exception_type(TryAgain), stop=enough, wait=pause, reraise=True)
        if not asked_to_wait:
            await asyncio.sleep(self._limits.shortest_wait)
        try:
            async for attempt in tries:
                with attempt:
                    try:
                        return await self._attempt(question), charged
                    except TryAgain as error:
                        charged += error.charged
                        self._tally.retried += 1
                        raise
        except TryAgain as error:
            if not error.connected and not self._answered:
                raise UserError(f"{error}: is the server running, and the address right?") from None
            return str(error), charged
        except Failure as error:
            return str(error), charged
        raise AssertionError("unreachable")

    async def _attempt(self, question: Question) -> Completion:
        while True:
            await self._requests.take(1)
            await self._tokens.take(expected_tokens(question.request))
            first = await self.gate.passing()
            try:
                async with asyncio.timeout(self._limits.timeout):
                    completion = await self.backend.complete(question.request)
                self.gate.answered()
                self._answered = True
                return completion
            except TimeoutError:
                raise TryAgain(f"no answer within {self._limits.timeout:g} s", charged=True) from None
            except QuotaSpent as error:
                if not self.gate.spent(str(error)):
                    raise UserError(f"{error}; what is done is kept, and the same command goes on from here") from None
            except TryAgain as error:
                self._answered |= error.connected
                raise
            finally:
                if first:
                    self.gate.tried()
