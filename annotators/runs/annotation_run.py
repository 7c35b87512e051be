"""An annotation run: a file of pairs in, a file of annotations out, with progress, a store to go on from, a summary.

Pairs are shown in an order drawn for each, so that a bias for the first place favours neither column, or in both
orders. They are annotated in chunks: after each, what was found out is in the store, where one is named. Language
models are asked in one session, which keeps every answer the moment it comes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from annotators.llm.annotator import LLMAnnotator
from annotators.llm.feedback import LLMRater
from annotators.llm.session import session
from annotators.noise.both_orders import BothOrders
from annotators.runs import active, aggregation
from annotators.runs.annotation_summary import failures, of_aggregate, questions, spent, summarise
from annotators.runs.cached import Cached
from farm.asking.givers import keeps_answers, parts_of
from farm.asking.limits import Limits
from farm.base import progress
from farm.base.errors import Interrupted, UserError, nearest
from farm.feedback import designs
from farm.roles import config
from farm.roles.protocols import Annotator, Context, Features, World
from farm.storage.store import Store, home
from farm.tables.formats import check_table, read_table, write_annotations
from farm.tables.records import PairIds, in_random_order, unannotated

CHUNK = 20_000
"""Rows annotated between two entries in the store."""

Order = Literal["random", "given", "both"]


@dataclass(frozen=True)
class Active:
    """How the next pairs are chosen."""

    strategy: active.Strategy
    labels: int
    rounds: int
    features: Features


@dataclass(frozen=True)
class AnnotationRun:
    """Everything a run needs, checked before the first row is annotated."""

    pairs: pd.DataFrame
    annotator: Annotator
    out: Path
    seed: int
    order: Order
    replicates: int
    limits: Limits
    """on what language models are asked"""
    aggregate: str | None = None
    """how the votes on each pair become one verdict (annotators/runs/aggregation.py)"""
    active: Active | None = None
    """which of the pairs are asked about, round by round (annotators/runs/active.py)"""
    first_replicate: int = 0

    def plan(self) -> dict[str, Any]:
        """How much there is to do, without asking anyone."""
        ids = PairIds(self.pairs)
        facts = {
            "pairs": len(self.pairs),
            "distinct_pairs": len(np.unique(ids.pair)),
            "identical_outputs": int(ids.identical.sum()),
            "replicates": self.replicates,
            "order": self.order,
            "verdicts": len(self.pairs) * self.replicates,
        }
        if self.active:  # what is asked later depends on the answers
            return {**facts, "verdicts": self.active.labels, "candidates": len(self.pairs)}
        if self._asks_models():
            with session(replace(self.limits, dry_run=True)) as dry, progress.quiet():
                for _ in self._annotated():
                    pass
            tally = dry.tally
            asked = {"questions": tally.questions, "cached": tally.cached, "to_ask": tally.unasked}
            tokens = {"input_tokens": tally.input_tokens, "output_tokens_at_most": tally.output_tokens}
            return {**facts, **asked, **tokens, "models": sorted(tally.models), "cost_estimate": round(tally.cost, 6)}
        if isinstance(self.annotator, Cached):
            known = (
                self._shown(partial(_known, self.annotator, seed=self.seed, replicate=r), c) for r, c in self._chunks()
            )
            facts["cached"] = sum(int(table["cached"].sum()) for table in known)
        return facts

    def go(self) -> dict[str, Any]:
        """Annotate everything, write the file, and return the summary."""
        started = time.monotonic()
        total = self.active.labels if self.active else len(self.pairs) * self.replicates
        tables: list[pd.DataFrame] = []
        with session(self.limits, self._rehearsal()) as asked, progress.task("annotating", total=total) as work:
            try:
                for table in self._annotated():
                    tables.append(table)
                    # A session with language models has shown its own progress already.
                    done, paid = sum(map(len, tables)), sum(map(spent, tables))
                    work.advance(max(done - work.done, 0), max(paid - work.cost, 0.0), failures(tables))
            except KeyboardInterrupt:
                kept = "what is done is in the store, and the same command goes on from there"
                lost = "and nothing is kept: name a --store to be able to go on"
                how = kept if keeps_answers(self.annotator) else lost
                raise Interrupted(f"interrupted after {work.done:,} of {total:,} verdicts; {how}") from None
        table = pd.concat(tables, ignore_index=True) if tables else self.annotator.annotate(self.pairs, seed=self.seed)
        # Whether a verdict came from the store is about this run, not about the verdict.
        write_annotations(table.drop(columns="cached", errors="ignore"), self._votes_path())
        together: dict[str, Any] = {}
        if self.aggregate:
            one = aggregation.aggregated(table, self.aggregate)
            write_annotations(one, self.out)
            together = {"votes": str(self._votes_path()), "aggregated": of_aggregate(one, self.aggregate)}
        seconds = round(time.monotonic() - started, 2)
        return {
            "out": str(self.out),
            **together,
            **summarise(table),
            **questions(asked.tally),
            "took_seconds": seconds,
        }

    def table(self) -> pd.DataFrame:
        """All verdicts, or one a pair where they are aggregated; nothing is written."""
        with session(self.limits, self._rehearsal()):
            votes = pd.concat(list(self._annotated()), ignore_index=True)
        return aggregation.aggregated(votes, self.aggregate) if self.aggregate else votes

    def _asks_models(self) -> bool:
        return any(isinstance(part, (LLMAnnotator, LLMRater)) for part in parts_of(self.annotator))

    def _rehearsal(self) -> Callable[[], object] | None:
        """All questions once, for the budget; None where they follow from answers, or nobody is asked."""
        return None if self.active or not self._asks_models() else lambda: deque(self._annotated(), maxlen=0)

    def _votes_path(self) -> Path:
        """Where the single verdicts go: the output, or beside it where that holds one verdict a pair."""
        return self.out.with_name(f"{self.out.stem}.votes{self.out.suffix}") if self.aggregate else self.out

    def _annotated(self) -> Iterator[pd.DataFrame]:
        if self.active:
            how = self.active
            ask = partial(self._shown, partial(self.annotator.annotate, seed=self.seed))
            yield from active.rounds_of(
                self.pairs, ask, how.features, how.strategy, labels=how.labels, rounds=how.rounds, seed=self.seed
            )
            return
        for replicate, chunk in self._chunks():
            yield self._shown(partial(self.annotator.annotate, seed=self.seed, replicate=replicate), chunk)

    def _chunks(self) -> Iterator[tuple[int, pd.DataFrame]]:
        for replicate in range(self.first_replicate, self.first_replicate + self.replicates):
            for start in range(0, len(self.pairs), CHUNK):
                yield replicate, self.pairs.iloc[start : start + CHUNK]

    def _shown(self, ask: Callable[[pd.DataFrame], pd.DataFrame], chunk: pd.DataFrame) -> pd.DataFrame:
        return in_random_order(ask, chunk, self.seed) if self.order == "random" else ask(chunk)


def prepare(
    pairs: Path,
    annotators: str,
    out: Path,
    *,
    store: Path | None = None,
    seed: int = 0,
    order: Order = "random",
    replicates: int = 1,
    world: str | None = None,
    settings: Sequence[str] = (),
    limits: Limits | None = None,
    against: Path | None = None,
    design: str | None = None,
    per_instruction: int = 1,
    score: str = "score",
    aggregate: str | None = None,
    strategy: str | None = None,
    labels: int | None = None,
    rounds: int = 10,
) -> AnnotationRun:
    """A run from what the command line says.

    ``pairs`` is a file of pairs, or of outputs that are paired by a ``design``, or head to head with those of the file
    ``against``.

    With a ``store``, an annotator that does not keep its answers itself is wrapped in
    :class:`~annotators.runs.cached.Cached`; one that does keeps them there, and else in the program's home.

    Raises:
        UserError: for anything wrong in the files, the annotators or the settings.
    """
    check_table(out, inputs=(pairs, against))
    check(aggregate, strategy, labels, replicates)
    if strategy is not None:
        design = design or ("all" if against is None and "output" in read_table(pairs).columns else None)
    table = unannotated(
        designs.read(pairs, against=against, design=design, per_instruction=per_instruction, score=score, seed=seed)
    )
    check_table(out, table)
    path = config.find("annotators", annotators)
    spec = config.override(config.load_mapping(path), settings)
    kept = Store(store if store is not None else home() / "store.sqlite")
    context = context_for(world, kept)
    annotator = config.build(Annotator, spec, context, str(path))
    if order == "both":
        annotator = BothOrders(annotator)
    if store is not None and not keeps_answers(annotator):
        annotator = Cached(annotator, kept)
    chooser = chooser_of(strategy, labels, rounds, context)
    return AnnotationRun(table, annotator, out, seed, order, replicates, limits or Limits(), aggregate, chooser)


def check(aggregate: str | None, strategy: str | None, labels: int | None, replicates: int) -> None:
    """Refuse ways, strategies and combinations that there are not, before anything is read."""
    if aggregate is not None and aggregate not in aggregation.WAYS:
        raise UserError(f"there is no way to aggregate called `{aggregate}`; {nearest(aggregate, aggregation.WAYS)}")
    if strategy is not None:
        if strategy not in active.STRATEGIES:
            raise UserError(f"there is no strategy `{strategy}`; {nearest(strategy, active.STRATEGIES)}")
        if labels is None:
            raise UserError("--active chooses what to ask, so say how much: --labels N")
        if replicates > 1 or aggregate:
            raise UserError("--active asks about each pair once: leave out --replicates and --aggregate")
    elif labels is not None:
        raise UserError("--labels is for --active: name a strategy")


def chooser_of(strategy: str | None, labels: int | None, rounds: int, context: Context) -> Active | None:
    """How the next pairs are chosen; None where all are asked about."""
    if strategy is None or labels is None or context.features is None:
        return None
    known = next(s for s in active.STRATEGIES if s == strategy)
    return Active(known, labels, rounds, context.features)


def context_for(world: str | None, store: Store) -> Context:
    """What annotators may ask for: a world and its features, or the features of any text."""
    if world is not None:
        found = config.build(World, world, Context(store=store), "--world")
        return Context(world=found, features=found.features, store=store)
    from farm.worlds.text_features import TextFeatures

    features: Features = TextFeatures()
    return Context(features=features, store=store)


def _known(cached: Cached, pairs: pd.DataFrame, *, seed: int, replicate: int) -> pd.DataFrame:
    keys = cached.keys(pairs, seed, replicate)
    known = cached.store.get(keys)
    return pairs.assign(cached=[key in known for key in keys])
