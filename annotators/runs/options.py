"""The options of an annotation run, said once: for the command, for Python and for the run itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotators.runs import active, aggregation
from farm.asking.limits import Limits
from farm.base.errors import UserError, nearest

Order = Literal["random", "given", "both"]


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """What is asked, of whom nothing is said here, and what may be spent on it."""

    kind: str | None = None
    """Feedback: pairs, rankings, ratings, reactions, critiques, corrections, checks or triplets; by default what the
    annotators give, pairs where they give several."""
    against: Any = None
    """Outputs of the baseline: compare head to head."""
    design: str | None = None
    """Pair outputs by random, all, best-worst, swiss, ranked, uncertainty or adjacent."""
    per_instruction: int = 1
    """Pairs (random, uncertainty) or triplets of one instruction."""
    score: str = "score"
    """The column of scores for best-worst, swiss, ranked and uncertainty."""
    seed: int = 0
    """The seed of everything random."""
    replicate: int = 0
    """The number of the first answer to every row."""
    replicates: int = 1
    """Answers to every row."""
    order: Order = "random"
    """"random" draws which output is shown first, "given" shows them as they stand, "both" asks about a pair twice."""
    aggregate: str | None = None
    """One verdict a pair from its votes: majority, dawid-skene, glad or weighted."""
    active: str | None = None
    """Choose what to label next, round by round: disagreement, thompson or random."""
    labels: int | None = None
    """With `active`: verdicts in all."""
    rounds: int = 10
    """With `active`: rounds of choosing."""
    world: str | None = None
    """The world that the texts are from; by default any text."""
    store: Path | str | None = None
    """Keep every answer here: nothing is asked twice, and a run can go on."""
    budget: float | None = None
    """US dollars that are never exceeded."""
    concurrency: int | None = None
    """Questions to language models in flight."""
    requests_per_minute: float | None = None
    """To each model."""
    tokens_per_minute: float | None = None
    """Of questions, to each model."""
    timeout: float = 120.0
    """Seconds for one answer of a language model."""
    batches: bool = False
    """Submit questions as the provider's batches; run again to collect."""

    @property
    def limits(self) -> Limits:
        return Limits(
            budget=self.budget, concurrency=self.concurrency, requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute, timeout=self.timeout, batches=self.batches,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse names that there are not, and what does not go together.

        Raises:
            UserError: naming the option as the command does.
        """
        if self.aggregate is not None and self.aggregate not in aggregation.WAYS:
            known = nearest(self.aggregate, aggregation.WAYS)
            raise UserError(f"there is no way to aggregate called `{self.aggregate}`; {known}")
        if self.active is None:
            if self.labels is not None:
                raise UserError("--labels is for --active: name a strategy")
            return
        if self.active not in active.STRATEGIES:
            raise UserError(f"there is no strategy `{self.active}`; {nearest(self.active, active.STRATEGIES)}")
        if self.labels is None:
            raise UserError("--active chooses what to ask, so say how much: --labels N")
        if self.replicates > 1 or self.aggregate:
            raise UserError("--active asks about each pair once: leave out --replicates and --aggregate")

    def check_kind(self, kind: str) -> None:
        """Refuse what is for pairs alone, of another kind of feedback."""
        both, given = self.order == "both", self.order == "given" and kind not in ("rankings", "triplets")
        of_pairs = {"--both-orders": both, "--given-order": given, "--against": self.against is not None}
        of_pairs |= {"--design": self.design, "--aggregate": self.aggregate, "--active": self.active}
        if kind != "pairs" and (said := [option for option, value in of_pairs.items() if value]):
            raise UserError(f"{said[0]} is for pairs, and --kind {kind} has none")
