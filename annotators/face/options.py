"""The options of an annotation run, as the command line, Python and the run itself share them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from farm.asking.limits import AskingOptions, Limits
from farm.base.bounds import Count, Natural, Share
from farm.base.errors import OptionError, nearest
from farm.face.options import PYTHON_ONLY, Flag

Order = Literal["random", "given", "both"]


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions(AskingOptions):
    kind: str | None = None
    """Feedback: pairs, rankings, ratings, reactions, critiques, corrections, checks, triplets or sets; by default
    what the annotators give, pairs where they give several."""
    design: str | None = None
    """Pair outputs: random, all, best-worst, swiss, ranked, uncertainty or adjacent."""
    per_instruction: Count = 1
    """Pairs (random, uncertainty) or triplets of one instruction."""
    score: str = "score"
    """The column of scores for best-worst, swiss, ranked and uncertainty."""
    against: Annotated[Any, Flag(kind=Path)] = None
    """Outputs of the baseline: compare head to head."""
    seed: int = 0
    """The seed of everything random."""
    order: Annotated[Order, Flag("an order (--both-orders, --given-order)", hidden=True)] = "random"
    """"random" draws which output is shown first, "given" shows them as they stand, "both" asks about a pair twice."""
    replicate: Annotated[Natural, PYTHON_ONLY] = 0
    """The number of the first answer to every row."""
    replicates: Count = 1
    """Answers to every row."""
    aggregate: str | None = None
    """One verdict a pair from its votes: majority, dawid-skene, glad or weighted."""
    active: str | None = None
    """Choose what to label next, round by round: disagreement, thompson or random."""
    labels: Count | None = None
    """With --active: verdicts in all."""
    rounds: Count = 10
    """With --active: rounds of choosing."""
    world: str | None = None
    """The world that the texts are from; by default any text."""
    store: Path | None = None
    """Keep every answer here: nothing is asked twice, and a run can go on."""
    timeout: Annotated[float, Ge(1)] = 120.0
    """Seconds for one answer of a language model."""
    batches: bool = False
    """Submit questions as the provider's batches; run again to collect."""

    @property
    def limits(self) -> Limits:
        asking = {field.name: getattr(self, field.name) for field in fields(AskingOptions)}
        return Limits(**asking, timeout=self.timeout, batches=self.batches)

    def check(self) -> None:
        """Refuse names that there are not, and what does not go together.

        Raises:
            OptionError: naming the option.
        """
        from annotators.runs import active, aggregation

        if self.aggregate is not None and self.aggregate not in aggregation.WAYS:
            known = nearest(self.aggregate, aggregation.WAYS)
            raise OptionError(f"there is no way to aggregate called {self.aggregate}; {known}")
        if self.active is None:
            if self.labels is not None:
                raise OptionError("`labels` is for `active`: name a strategy")
            return
        if self.active not in active.STRATEGIES:
            raise OptionError(f"there is no strategy {self.active}; {nearest(self.active, active.STRATEGIES)}")
        if self.labels is None:
            raise OptionError("`active` chooses what to ask, so say how much: `labels` N")
        if self.replicates > 1 or self.aggregate:
            raise OptionError("`active` asks about each pair once: leave out `replicates` and `aggregate`")

    def check_kind(self, kind: str) -> None:
        """Refuse what is for pairs alone, of another kind of feedback.

        Raises:
            OptionError: naming the option.
        """
        ordered = self.order == "both" or (self.order == "given" and kind not in ("rankings", "triplets", "sets"))
        of_pairs = {"order": ordered, "against": self.against is not None, "design": self.design}
        of_pairs |= {"aggregate": self.aggregate, "active": self.active}
        if kind != "pairs" and (said := [option for option, value in of_pairs.items() if value]):
            raise OptionError(f"`{said[0]}` is for pairs, and {kind} have none")


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    votes: Annotated[Any, Flag(argument=True, kind=Path)] = field(kw_only=False)
    """Votes of several people on the same pairs: AlpacaEval cross-annotations, annotated pairs 2.0, crowd tables (pair,
    worker, verdict), PandaLM; or an AlpacaEval evaluators leaderboard (.csv)."""
    out: Path | None = field(default=None, kw_only=False)
    """The YAML of the crowd, for --annotators and `farm run`."""
    annotator: str = ""
    """Only annotators whose name contains this; of a leaderboard, the row (humans)."""
    pairs: Path | None = None
    """The judged pairs, for a leaderboard."""
    groups: Annotated[int, Ge(1), Le(4)] | None = None
    """Groups of people; by default chosen by BIC."""


@dataclass(frozen=True, kw_only=True)
class DriftOptions(AskingOptions):
    verdicts: Annotated[Any, Flag(argument=True, kind=Path)] = field(kw_only=False)
    """The anchors: what `farm annotate` wrote of this judge earlier, best with --replicates 2."""
    out: Path | None = None
    """Where the verdicts of then and now go together, as the anchors of the next time."""
    replicate: Natural | None = None
    """The number of the new answer to every anchor; by default the next one."""
    world: str | None = None
    """The world that the texts are from; by default any text."""
    store: Path | None = None
    """Keep every answer here."""
    timeout: Annotated[float, Ge(1)] = 120.0
    """Seconds for one answer of a language model."""


@dataclass(frozen=True, kw_only=True)
class PrinciplesOptions(AskingOptions):
    votes: Annotated[Any, Flag(argument=True, kind=Path)] = field(kw_only=False)
    """Votes on pairs of texts, in any layout that `farm calibrate` reads; one vote a pair is enough."""
    out: Path | None = field(default=None, kw_only=False)
    """The YAML of the constitution, for --annotators and `farm run`."""
    pairs: Path | None = None
    """Texts of the pairs by `pair_id` or `id`, where the votes have only the ids."""
    annotator: str = ""
    """Only annotators whose name contains this."""
    judge: Annotated[Any, Flag(kind=str)] = None
    """Who is held beside the constitution, by name or a YAML file; a language model also proposes principles and says
    what each selects. By default the features of the texts do all that."""
    n: Count = 5
    """Principles, at most."""
    per_pair: Count = 2
    """Principles that each pair proposes."""
    clusters: Count = 40
    """Kinds of principles that are voted on, at most."""
    least: Share = 0.1
    """Votes for a principle, as a share of all pairs."""
    rule: Literal["first", "sum"] = "first"
    """What decides a pair: the first principle that applies to it, or the sum of all."""
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of the pairs on which the constitution is tested."""
    seed: int = 0
    """The seed of everything random."""
