"""What came out of an annotation run, as plain data and as lines for a terminal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from annotators.llm.completion import redacted
from annotators.llm.tally import Tally
from farm.base.errors import Fruitless
from farm.statistics import uncertainty

SHARES = {"coins": "coin", "consistent": "consistent", "from_store": "cached"}
"""shares of all verdicts in a summary, and the columns that they are of"""


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """What came out: counts of statuses, ties and coins, the preference for the first output, costs, who was asked.

    ``prefers_first`` counts ties as one half, leaves out rows without a verdict, and has a 95 % interval clustered by
    instruction.
    """
    ok = table[table["status"] == "ok"]
    score = 2.0 - ok["preference"].to_numpy(dtype=np.float64)
    shares = {
        name: round(float(table[column].astype(bool).mean()), 4)
        for name, column in SHARES.items()
        if column in table.columns and len(table)
    }
    by = ok.assign(score=score).groupby("annotator")["score"].agg(["size", "mean"])
    tokens = {c: int(table[c].sum()) for c in ("input_tokens", "output_tokens") if table[c].any()}
    return {
        "verdicts": len(table),
        "status": {str(k): int(v) for k, v in table["status"].value_counts().items()},
        **reason(table),
        "identical_outputs": int((ok["output_1"] == ok["output_2"]).sum()),
        "ties": int((ok["preference"] == 1.5).sum()),
        "prefers_first": _interval(score, ok["instruction"]),
        **shares,
        **tokens,
        "cost": round(spent(table), 6),
        "annotators": {
            str(name): {"verdicts": int(row["size"]), "prefers_first": round(float(row["mean"]), 4)}
            for name, row in by.iterrows()
        },
    }


def reason(table: pd.DataFrame) -> dict[str, str]:
    """Why most of the rows without an answer have none, where that is known."""
    said = table["failure"].dropna() if "failure" in table.columns else pd.Series(dtype=object)
    return {"failure": str(said.mode()[0])} if len(said) else {}


def check(facts: dict[str, Any]) -> None:
    """Refuse a summary of questions of which none was answered. Identical outputs are ties without a question."""
    status: dict[str, int] = facts["status"]
    failed = {name: count for name, count in status.items() if name not in ("ok", "unobserved")}
    if failed and status.get("ok", 0) <= facts.get("identical_outputs", 0):
        counts = ", ".join(f"{count:,} {name}" for name, count in failed.items())
        why = f": {redacted(facts['failure'], 150)}" if "failure" in facts else ""
        raise Fruitless(f"{facts['out']}: not one answer ({counts}){why}")


def of_aggregate(table: pd.DataFrame, way: str) -> dict[str, Any]:
    """What aggregation made of the votes."""
    decided = table["preference"].dropna()
    return {
        "way": way, "pairs": len(table), "votes_a_pair": round(float(table["votes"].mean()), 2),
        "ties": int((decided == 1.5).sum()), "agreement_with_the_label": round(float(table["agreement"].mean()), 4),
    }  # fmt: skip


def _interval(score: np.ndarray, clusters: pd.Series) -> dict[str, float | int | None]:
    """The share with its interval; None where it is not known."""
    found = uncertainty.mean(score, clusters.astype(str), bounds=uncertainty.SHARE)
    known = {"estimate": found.value, "low": found.low, "high": found.high}
    return {"n": found.n, **{name: None if np.isnan(value) else round(value, 4) for name, value in known.items()}}


def questions(tally: Tally) -> dict[str, Any]:
    """How the questions to language models fared, where there were any."""
    if not tally.questions:
        return {}
    counts = {"asked": tally.asked, "known": tally.cached, "retried": tally.retried, "failed": tally.failed}
    unpriced = {"without_a_price": sorted(tally.unpriced)} if tally.unpriced else {}
    return {"questions": {**counts, "not asked": tally.unasked}, "models": sorted(tally.models), **unpriced}


def spent(table: pd.DataFrame) -> float:
    """US dollars spent now: rows from the store were paid for earlier."""
    paid = table[~table["cached"].astype(bool)] if "cached" in table.columns else table
    return float(paid["price"].sum())


def failures(tables: list[pd.DataFrame]) -> str:
    """Rows without a verdict, for the progress display."""
    failed = sum(int((t["status"] != "ok").sum()) for t in tables)
    return f"{failed:,} without a verdict" if failed else ""


def sentences(summary: dict[str, Any], longest: int = 20) -> str:
    """A plan or a summary for people: one fact a line, and at most so many annotators."""
    facts = {k.replace("_", " "): v for k, v in summary.items() if k != "annotators"}
    lines = [f"{name:<17} {_shown(name, value)}" for name, value in facts.items()]
    annotators: dict[str, Any] = summary.get("annotators", {})
    if annotators:
        lines.append("annotators: verdicts, share that prefers the first output")
        width = max(map(len, annotators))
        rows = [f"  {n:<{width}}  {v['verdicts']:>9,}   {v['prefers_first']:.3f}" for n, v in annotators.items()]
        lines += rows[:longest]
        if len(rows) > longest:
            lines.append(f"  and {len(rows) - longest} more (--json has all)")
    return "\n".join(lines)


def _shown(name: str, value: Any) -> str:
    if name.startswith("cost"):
        return f"${value:,.4f}"
    if isinstance(value, dict) and "estimate" in value:
        interval = "" if value["low"] is None else f" [{value['low']:.3f}, {value['high']:.3f}]"
        return "none" if value["estimate"] is None else f"{value['estimate']:.3f}{interval}   n {value['n']:,}"
    if isinstance(value, dict):
        return ", ".join(f"{k.replace('_', ' ')} {_shown(k, v)}" for k, v in value.items())
    if name.replace(" ", "_") in SHARES:
        return f"{100 * value:.4g} %"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
