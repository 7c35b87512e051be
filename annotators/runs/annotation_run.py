"""An annotation run: a table of responses or pairs in, a table of feedback of any kind out.

Rows are asked about in chunks, with progress and a summary: after each chunk what was found out is in the store, where
one is named. Language models are asked in one session, which keeps every answer the moment it comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from annotators.face.options import AnnotateOptions
from annotators.llm.annotator import LLMAnnotator
from annotators.llm.feedback import Asker
from annotators.llm.session import session
from annotators.runs import active, aggregation
from annotators.runs.annotation_summary import failures, of_aggregate, questions
from annotators.runs.givers import built, context_for
from farm.asking import ask as asking
from farm.asking.givers import keeps_answers, parts_of
from farm.asking.kept import keys
from farm.base import progress
from farm.base.errors import Interrupted, OptionError, UserError
from farm.feedback.designs import Design, head_to_head
from farm.feedback.kind import FeedbackKind, paid
from farm.feedback.kind import kind as kind_of
from farm.roles.protocols import Features
from farm.storage.store import Store, home
from farm.tables import formats
from farm.tables.formats import check_table, write_annotations
from farm.tables.records import PairIds, unannotated

Rows: TypeAlias = pd.DataFrame | Sequence[Mapping[str, Any]] | str | Path

CHUNK = 20_000
"""Rows asked about between two entries in the store."""


@dataclass(frozen=True)
class AnnotationRun:
    """Everything a run needs, checked before the first row is asked about."""

    kind: FeedbackKind
    rows: pd.DataFrame
    giver: Any
    out: Path | None
    """None where the answers are wanted as a table only"""
    options: AnnotateOptions
    store: Store | None = None
    """where answers are kept, of a giver that does not keep them itself"""
    features: Features | None = None
    """of the texts, for active choice"""

    def plan(self) -> dict[str, Any]:
        """How much there is to do, without asking anyone."""
        o, rows = self.options, self.rows
        facts: dict[str, Any] = {"kind": self.kind.name, "rows": len(rows), "replicates": o.replicates}
        if self.kind.name == "pairs":
            ids = PairIds(rows)
            distinct, identical = len(np.unique(ids.pair)), int(ids.identical.sum())
            facts = {"pairs": len(rows), "distinct_pairs": distinct, "identical_outputs": identical}
            facts |= {"replicates": o.replicates, "order": o.order, "verdicts": len(rows) * o.replicates}
        if o.active:  # what is asked later depends on the answers
            return {**facts, "verdicts": o.labels, "candidates": len(rows)}
        if any(isinstance(part, (LLMAnnotator, Asker)) for part in parts_of(self.giver)):
            with session(replace(o.limits, dry_run=True)) as dry, progress.quiet():
                for _ in self._answers():
                    pass
            tally = dry.tally
            asked = {"questions": tally.questions, "cached": tally.cached, "to_ask": tally.unasked}
            tokens = {"input_tokens": tally.input_tokens, "output_tokens_at_most": tally.output_tokens}
            return {**facts, **asked, **tokens, "models": sorted(tally.models), "cost_estimate": round(tally.cost, 6)}
        return facts if self.store is None else {**facts, "cached": self._known(self.store)}

    def go(self) -> dict[str, Any]:
        """Ask about everything, write the file, and return the summary."""
        assert self.out is not None
        started, o = time.monotonic(), self.options
        total = o.labels if o.active and o.labels else len(self.rows) * o.replicates
        what = "verdicts" if self.kind.name == "pairs" else self.kind.name
        tables: list[pd.DataFrame] = []
        with session(o.limits) as asked, progress.task("annotating", total=total) as work:
            try:
                for table in self._answers():
                    tables.append(table)
                    # A session with language models has shown its own progress already.
                    done, cost = sum(map(len, tables)), sum(map(paid, tables))
                    work.advance(max(done - work.done, 0), max(cost - work.cost, 0.0), failures(tables))
            except KeyboardInterrupt:
                kept = "what is done is in the store, and the same command goes on from there"
                lost = "and nothing is kept: name a --store to be able to go on"
                how = kept if self.store is not None or keeps_answers(self.giver) else lost
                raise Interrupted(f"interrupted after {work.done:,} of {total:,} {what}; {how}") from None
        table = pd.concat(tables, ignore_index=True)
        # Whether an answer came from the store is about this run, not about the answer.
        write_annotations(table.drop(columns="cached", errors="ignore"), self._votes_path(self.out))
        together: dict[str, Any] = {} if self.kind.name == "pairs" else {"kind": self.kind.name}
        if o.aggregate:
            one = aggregation.aggregated(table, o.aggregate)
            write_annotations(one, self.out)
            together = {"votes": str(self._votes_path(self.out)), "aggregated": of_aggregate(one, o.aggregate)}
        facts = {"out": str(self.out), **together, **self.kind.summary(table), **questions(asked.tally)}
        return {**facts, "took_seconds": round(time.monotonic() - started, 2)}

    def table(self) -> pd.DataFrame:
        """All answers, or one verdict a pair where they are aggregated; nothing is written."""
        with session(self.options.limits):
            votes = pd.concat(list(self._answers()), ignore_index=True)
        return aggregation.aggregated(votes, self.options.aggregate) if self.options.aggregate else votes

    def _votes_path(self, out: Path) -> Path:
        """Where the single votes go: the output, or beside it where that holds one verdict a pair."""
        return out.with_name(f"{out.stem}.votes{out.suffix}") if self.options.aggregate else out

    def _answers(self) -> Iterator[pd.DataFrame]:
        o = self.options
        order: asking.Order = "random" if o.order == "random" else "given"
        if not o.active:
            replicates = range(o.replicate, o.replicate + o.replicates)
            yield from asking.parts(
                self.kind, self.giver, self.rows,
                seed=o.seed, replicates=replicates, order=order, chunk=CHUNK, store=self.store,
            )  # fmt: skip
            return

        def ask(pairs: pd.DataFrame) -> pd.DataFrame:
            return asking.ask(self.kind, self.giver, pairs, seed=o.seed, order=order, store=self.store)

        assert self.features is not None and o.labels is not None
        strategy = next(s for s in active.STRATEGIES if s == o.active)
        yield from active.rounds_of(
            self.rows, ask, self.features, strategy, labels=o.labels, rounds=o.rounds, seed=o.seed
        )

    def _known(self, store: Store) -> int:
        """How many answers are in the store."""
        o, known = self.options, 0
        rows = unannotated(self.rows, self.kind.columns)
        shown = self.kind.orient(rows, o.seed)[0] if o.order == "random" else rows
        for replicate in range(o.replicate, o.replicate + o.replicates):
            at = keys(self.kind, self.giver, shown, o.seed, replicate)
            there = store.get(at)
            known += sum(key in there for key in at)
        return known


def prepare(
    rows: Rows,
    annotators: Any,
    out: Path | None = None,
    options: AnnotateOptions | None = None,
    *,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> AnnotationRun:
    """A run, checked.

    Args:
        rows: a table, rows or a file of pairs, or of outputs that are put together as the kind and the design say.
        annotators: a name, a YAML file, a spec, a class, or one who gives feedback.
        settings: changes to the annotators, ``a.b=c``, or a mapping.

    With a ``store``, answers are kept there, by the giver or for it; without one, by those who do so themselves, in the
    program's home.

    Raises:
        UserError: for anything wrong in the files, the annotators or the options.
    """
    o = options or AnnotateOptions()
    files = [Path(given) for given in (rows, o.against) if isinstance(given, (str, Path))]
    if out is not None:
        check_table(out, inputs=files)
    o.check()
    if o.kind is not None:
        o.check_kind(kind_of(o.kind).name)
    store = Store(o.store if o.store is not None else home() / "store.sqlite")
    context = context_for(o.world, store)
    given = _read(rows, o.kind)
    kind, giver = built(annotators, settings, o, context)
    o.check_kind(kind.name)
    table = unannotated(_together(given, kind, o), kind.columns)
    if o.aggregate and o.replicates == 1 and len(np.unique(PairIds(table).pair)) == len(table):
        raise OptionError("`aggregate` is for several verdicts on a pair: ask for them by `replicates`")
    if out is not None:
        check_table(out, table)
    keep = store if o.store is not None and not keeps_answers(giver) else None
    return AnnotationRun(kind, table, giver, out, o, keep, context.features)


def _read(rows: Rows, kind: str | None) -> pd.DataFrame:
    """Outputs, or pairs of them, with the columns that each must have."""
    file = rows if isinstance(rows, (str, Path)) else None
    table = formats.merge_input(formats.rows(rows, "the rows")) if file is None else formats.read_table(file)
    if "outputs" in table and not {"output", "output_1"} & set(table.columns):
        told = "`outputs` holds lists, and an output a row is read here: name it `output`, once for each of the list"
        raise UserError(f"{file or 'the rows'}: {told}")
    of_pairs = "output" not in table and ("output_1" in table or kind in (None, "pairs"))
    if file is not None:
        return formats.read_pairs(file) if of_pairs else formats.read_outputs(file)
    if not of_pairs:
        formats.require(table, ["instruction", "output"], "the outputs")
        return table
    formats.require(table, ["instruction", "output_1", "output_2"], "the pairs")
    return table.assign(**{c: "" for c in ("generator_1", "generator_2") if c not in table})


def _together(given: pd.DataFrame, kind: FeedbackKind, options: AnnotateOptions) -> pd.DataFrame:
    """What is asked about."""
    o, design = options, options.design
    if o.against is not None:
        if design is not None:
            raise UserError("two files are compared head to head: leave out either the design or the second file")
        return head_to_head(given, _read(o.against, "outputs"))
    if design is not None and "output" not in given.columns:
        raise UserError(f"the design {design} pairs outputs, and these are pairs already: leave it out")
    if o.active and "output" in given.columns:
        design = design or "all"
    return kind.build(given, Design(design or "", o.per_instruction, o.score), o.seed)
