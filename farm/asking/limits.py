"""What holds paid questions back: rates, patience, and a budget that is never exceeded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge

from farm.base.bounds import Count, NotNegative
from farm.base.errors import Fruitless


@dataclass(frozen=True, kw_only=True)
class AskingOptions:
    """The options of every command that may ask language models."""

    budget: NotNegative | None = None
    """US dollars for all questions to language models, never exceeded."""
    concurrency: Count | None = None
    """Questions to language models in flight."""
    requests_per_minute: Annotated[float, Ge(1)] | None = None
    """To each model."""
    tokens_per_minute: Annotated[float, Ge(1)] | None = None
    """Of questions, to each model."""

    @property
    def limits(self) -> Limits:
        return Limits(**{field.name: getattr(self, field.name) for field in fields(AskingOptions)})


@dataclass(frozen=True, kw_only=True)
class Limits(AskingOptions):
    """The limits on a run. Its budget is for those questions too that earlier runs paid for, and nothing is asked that
    might exceed it; left out, as many questions are in flight as the backend takes with profit."""

    timeout: float = 120.0
    """seconds for one answer, however slowly its bytes come"""
    attempts: int = 6
    """tries of one question before its row becomes an error"""
    quota_patience: float = 24 * 3600.0
    """seconds to wait for a spent quota before the run stops"""
    longest_wait: float = 60.0
    """seconds between two tries, unless the server asks for more"""
    shortest_wait: float = 0.5
    batches: bool = False
    """submit questions as the provider's batches: half the price, answers within a day, the same command collects"""
    batch_patience: float = 0.0
    """seconds to wait for batches to end, before their rows are left for later"""
    dry_run: bool = False
    """count and price the questions, ask none"""
    whole: bool = False
    """raise OverBudget where the budget has no room for a question, in place of a row without an answer"""

    @property
    def taking_turns(self) -> bool:
        """Whether processes that ask at the same time would exceed a limit together."""
        return any((self.budget is not None, self.concurrency, self.requests_per_minute, self.tokens_per_minute))


NO_ROOM = "the budget has no room for the next question"
"""whether all of it is spent, or only less than that question may cost is left"""


class OverBudget(Fruitless):
    """The budget has no room for questions that are needed; the answers so far are in the store."""

    def __init__(self, lacks: float) -> None:
        self.lacks = lacks
        """US dollars that the questions without an answer will cost, about"""
        kept = "the answers so far are kept, and the same command with a larger budget goes on"
        super().__init__(f"{NO_ROOM}, and about ${lacks:,.2f} more is needed; {kept}")
