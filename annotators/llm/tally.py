"""Counts of a run of questions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from annotators.llm.question import Answer


@dataclass
class Tally:
    """Counts of a run; in a dry run, what it would be."""

    questions: int = 0
    cached: int = 0
    asked: int = 0
    failed: int = 0
    retried: int = 0
    unasked: int = 0
    """for want of budget, or because the run is dry"""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """US dollars spent in this run; in a dry run, at most to be spent"""
    saved: float = 0.0
    """US dollars that the cached answers cost when they were made"""
    unpriced: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {k: sorted(v) if isinstance(v, set) else v for k, v in asdict(self).items()}

    def count(self, answer: Answer) -> None:
        """One more question, and what became of it."""
        self.questions += 1
        if answer.cached:
            self.cached += 1
            self.saved += answer.price
        elif not answer.asked:
            self.unasked += 1
        else:
            self.asked += 1
            self.failed += answer.completion is None
            self.cost += answer.price
            if answer.completion:
                self.input_tokens += answer.completion.input_tokens
                self.output_tokens += answer.completion.output_tokens
                self.models.add(answer.completion.model)
