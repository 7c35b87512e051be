"""A run for feedback other than pairs: a file of outputs (or of pairs, both sides) in, a file of feedback out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from annotators.llm.session import session
from annotators.runs.annotation_run import context_for
from annotators.runs.annotation_summary import questions, reason
from farm.asking.limits import Limits
from farm.base import progress
from farm.base.errors import Interrupted
from farm.feedback.designs import groups, singles
from farm.feedback.kind import kind as kind_of
from farm.roles import config
from farm.storage.store import Store, home
from farm.tables.formats import check_table, read_outputs, read_pairs, read_table, write_table

CHUNK = 20_000


@dataclass(frozen=True)
class FeedbackRun:
    """Everything a run needs, checked before the first question."""

    kind: str
    table: pd.DataFrame
    giver: Any
    out: Path
    seed: int
    replicates: int
    limits: Limits

    def plan(self) -> dict[str, Any]:
        """How much there is to do, without asking anyone."""
        facts = {"kind": self.kind, "rows": len(self.table), "replicates": self.replicates}
        with session(replace(self.limits, dry_run=True)) as dry, progress.quiet():
            self._rehearsal()
        tally = dry.tally
        if not tally.questions:
            return facts
        asked = {"questions": tally.questions, "cached": tally.cached, "to_ask": tally.unasked}
        return {**facts, **asked, "input_tokens": tally.input_tokens, "cost_estimate": round(tally.cost, 6)}

    def go(self) -> dict[str, Any]:
        """Ask for everything, write the file, and return the summary."""
        started = time.monotonic()
        parts: list[pd.DataFrame] = []
        total = len(self.table) * self.replicates
        with session(self.limits, self._rehearsal) as asked, progress.task(self.kind, total=total) as work:
            try:
                for part in self._given():
                    parts.append(part)
                    work.advance(max(sum(map(len, parts)) - work.done, 0))  # a model's questions have shown theirs
            except KeyboardInterrupt:
                kept = "answers of models are in the store, and the same command goes on from there"
                raise Interrupted(f"interrupted after {work.done:,} of {total:,}; {kept}") from None
        table = pd.concat(parts, ignore_index=True)
        write_table(table.drop(columns="cached", errors="ignore"), self.out)
        facts = {"out": str(self.out), **summarise(self.kind, table), **questions(asked.tally)}
        return {**facts, "took_seconds": round(time.monotonic() - started, 2)}

    def feedback(self) -> pd.DataFrame:
        """All of it; nothing is written."""
        with session(self.limits, self._rehearsal):
            return pd.concat(list(self._given()), ignore_index=True)

    def _rehearsal(self) -> None:
        for _ in self._given():
            pass

    def _given(self) -> Any:
        ask = getattr(self.giver, kind_of(self.kind).verb)
        for replicate in range(self.replicates):
            for start in range(0, len(self.table), CHUNK):
                yield ask(self.table.iloc[start : start + CHUNK], seed=self.seed, replicate=replicate)


def prepare(
    path: Path, kind: str, annotators: str, out: Path, *, store: Path | None = None, seed: int = 0,
    replicates: int = 1, world: str | None = None, settings: Sequence[str] = (), limits: Limits | None = None,
) -> FeedbackRun:  # fmt: skip
    """A run from what the command line says. Raises UserError for anything wrong."""
    role = kind_of(kind).giver
    check_table(out, inputs=(path,))
    pairs = "output_1" in read_table(path).columns
    table = shown(read_pairs(path) if pairs else read_outputs(path), kind)
    yaml = config.find("annotators", annotators)
    spec = config.override(config.load_mapping(yaml), settings)
    kept = Store(store if store is not None else home() / "store.sqlite")
    giver: Any = config.build(role, spec, context_for(world, kept), str(yaml))
    return FeedbackRun(kind, table, giver, out, seed, replicates, limits or Limits())


def shown(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """What is shown to who gives this feedback: outputs (both of a pair), or for rankings all of an instruction."""
    return groups(table) if kind == "rankings" else singles(table)


def summarise(kind: str, table: pd.DataFrame) -> dict[str, Any]:
    """What came out."""
    facts: dict[str, Any] = {
        "kind": kind, "rows": len(table), "status": {str(k): int(v) for k, v in table["status"].value_counts().items()},
        **reason(table),
    }  # fmt: skip
    if kind == "ratings":
        score = table["score"].dropna()
        facts |= {"mean": round(float(score.mean()), 4), "sd": round(float(score.std()), 4)} if len(score) else {}
    elif kind == "reactions":
        seen = table[table["observed"]]
        liked = seen["liked"].astype(float)
        facts |= {"observed": len(seen), "liked": round(float(liked.mean()), 4) if len(seen) else None}
        if len(seen):
            weight = 1 / seen["propensity"].to_numpy(np.float64)
            facts["liked_by_inverse_propensity"] = round(float((liked * weight).sum() / weight.sum()), 4)
    elif kind == "critiques":
        facts["mean_polarity"] = round(float(table["polarity"].mean()), 4)
    return {**facts, "cost": round(float(table["price"].sum()), 6)}
