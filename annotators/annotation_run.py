"""An annotation run: a file of pairs in, a file of annotations out, with progress, a store to go on from, a summary.

Pairs are shown in an order drawn for each, so that a bias for the first place favours neither column, or in both
orders. They are annotated in chunks: after each, what was found out is in the store, where one is named.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from annotators.both_orders import BothOrders
from annotators.cached import Cached
from annotators.wrapping import unannotated
from farm import config, progress
from farm.errors import UserError
from farm.formats import SUFFIXES, read_pairs, write_annotations
from farm.protocols import Annotator, Context, Features, World
from farm.records import PairIds, in_random_order
from farm.store import Store, home

CHUNK = 20_000
"""Rows annotated between two entries in the store."""

Order = Literal["random", "given", "both"]


@dataclass(frozen=True)
class AnnotationRun:
    """Everything a run needs, checked before the first row is annotated."""

    pairs: pd.DataFrame
    annotator: Annotator
    out: Path
    seed: int
    order: Order
    replicates: int

    def plan(self) -> dict[str, Any]:
        """How much there is to do, without asking anyone."""
        rows = len(self.pairs) * self.replicates
        cached = 0
        if isinstance(self.annotator, Cached):
            for replicate, chunk in self._chunks():
                look = partial(_known, self.annotator, seed=self.seed, replicate=replicate)
                cached += int(self._shown(look, chunk)["cached"].sum())
        ids = PairIds(self.pairs)
        return {
            "pairs": len(self.pairs),
            "distinct_pairs": len(np.unique(ids.pair)),
            "identical_outputs": int(ids.identical.sum()),
            "replicates": self.replicates,
            "order": self.order,
            "verdicts": rows,
            "cached": cached,
            "to_annotate": rows - cached,
        }

    def go(self) -> dict[str, Any]:
        """Annotate everything, write the file, and return the summary."""
        started = time.monotonic()
        total = len(self.pairs) * self.replicates
        tables: list[pd.DataFrame] = []
        with progress.task("annotating", total=total) as work:
            try:
                for replicate, chunk in self._chunks():
                    ask = partial(self.annotator.annotate, seed=self.seed, replicate=replicate)
                    tables.append(self._shown(ask, chunk))
                    work.advance(len(chunk), cost=_spent(tables[-1]), note=_failures(tables))
            except KeyboardInterrupt:
                done = sum(map(len, tables))
                kept = "what is done is in the store, and the same command goes on from there"
                lost = "and nothing is kept: name a --store to be able to go on"
                kept = kept if isinstance(self.annotator, Cached) else lost
                raise UserError(f"interrupted after {done:,} of {total:,} verdicts; {kept}") from None
        table = pd.concat(tables, ignore_index=True) if tables else self.annotator.annotate(self.pairs, seed=self.seed)
        write_annotations(table, self.out)
        return {"out": str(self.out), **summarise(table), "took_seconds": round(time.monotonic() - started, 2)}

    def _chunks(self) -> Iterator[tuple[int, pd.DataFrame]]:
        for replicate in range(self.replicates):
            for start in range(0, len(self.pairs), CHUNK):
                yield replicate, self.pairs.iloc[start : start + CHUNK]

    def _shown(self, ask: Any, chunk: pd.DataFrame) -> pd.DataFrame:
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
    settings: list[str] | None = None,
) -> AnnotationRun:
    """A run from what the command line says.

    Raises:
        UserError: for anything wrong in the files, the annotators or the settings.
    """
    if not str(out).endswith(SUFFIXES):
        raise UserError(f"{out}: the suffix tells the format; known: {', '.join(SUFFIXES)}")
    if out.resolve() == pairs.resolve():
        raise UserError(f"{out}: the annotations would overwrite the pairs; name another file")
    table = unannotated(read_pairs(pairs))
    path = config.find("annotators", annotators)
    spec = config.override(config.load_mapping(path), settings or [])
    kept = Store(store if store is not None else home() / "store.sqlite")
    annotator = config.build(Annotator, spec, _context(world, kept), str(path))
    if order == "both":
        annotator = BothOrders(annotator)
    if store is not None:
        annotator = Cached(annotator, kept)
    return AnnotationRun(table, annotator, out, seed, order, replicates)


def _context(world: str | None, store: Store) -> Context:
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


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """What came out: counts of statuses, ties and coins, the preference for the first output, costs, who was asked.

    ``prefers_first`` counts ties as one half, leaves out rows without a verdict, and has a 95 % interval clustered by
    instruction.
    """
    ok = table[table["status"] == "ok"]
    score = 2.0 - ok["preference"].to_numpy(dtype=np.float64)
    shares = {
        name: round(float(table[column].astype(bool).mean()), 4)
        for name, column in (("coins", "coin"), ("consistent", "consistent"), ("from_store", "cached"))
        if column in table.columns and len(table)
    }
    by = ok.assign(score=score).groupby("annotator")["score"].agg(["size", "mean"])
    return {
        "verdicts": len(table),
        "status": {str(k): int(v) for k, v in table["status"].value_counts().items()},
        "ties": int((ok["preference"] == 1.5).sum()),
        "prefers_first": _interval(score, ok["instruction"]),
        **shares,
        "input_tokens": int(table["input_tokens"].sum()),
        "output_tokens": int(table["output_tokens"].sum()),
        "cost": round(_spent(table), 6),
        "annotators": {
            str(name): {"verdicts": int(row["size"]), "prefers_first": round(float(row["mean"]), 4)}
            for name, row in by.iterrows()
        },
    }


def _interval(score: np.ndarray, clusters: pd.Series) -> dict[str, float | int | None]:
    n = len(score)
    if not n:
        return {"n": 0, "estimate": None, "low": None, "high": None}
    mean = float(score.mean())
    groups, names = pd.factorize(clusters)
    count = len(names)
    if count < 2:
        return {"n": n, "estimate": round(mean, 4), "low": None, "high": None}
    sums = np.bincount(groups, weights=score - mean)
    error = float(np.sqrt(count / (count - 1) * np.sum(sums**2)) / n)
    return {
        "n": n,
        "estimate": round(mean, 4),
        "low": round(max(mean - 1.96 * error, 0.0), 4),
        "high": round(min(mean + 1.96 * error, 1.0), 4),
    }


def _spent(table: pd.DataFrame) -> float:
    """US dollars spent now: rows from the store were paid for earlier."""
    paid = table[~table["cached"].astype(bool)] if "cached" in table.columns else table
    return float(paid["price"].sum())


def _failures(tables: list[pd.DataFrame]) -> str:
    failed = sum(int((t["status"] != "ok").sum()) for t in tables)
    return f"{failed:,} without a verdict" if failed else ""


def sentences(summary: dict[str, Any]) -> str:
    """A plan or a summary for people: one fact a line."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, dict):
            if key == "annotators":
                width = max((len(n) for n in value), default=0)
                rows = [f"  {n:<{width}}  {v['verdicts']:>9,}   {v['prefers_first']:.3f}" for n, v in value.items()]
                lines += ["annotators: verdicts, preference for the first output", *rows]
            elif "estimate" in value:
                low, high = value["low"], value["high"]
                interval = f" [{low:.3f}, {high:.3f}]" if low is not None else ""
                estimate = "none" if value["estimate"] is None else f"{value['estimate']:.3f}{interval}"
                lines.append(f"{key.replace('_', ' '):<18}{estimate}   n {value['n']:,}")
            else:
                lines.append(f"{key.replace('_', ' '):<18}" + ", ".join(f"{k} {v:,}" for k, v in value.items()))
        elif key == "cost":
            lines.append(f"{'cost':<18}${value:,.4f}")
        else:
            shown = f"{value:,}" if isinstance(value, (int, float)) else str(value)
            lines.append(f"{key.replace('_', ' '):<18}{shown}")
    return "\n".join(lines)
