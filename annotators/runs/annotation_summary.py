"""What came out of an annotation run, as lines for a terminal; what came out of each kind is in farm/feedback."""

from __future__ import annotations

from typing import Any

import pandas as pd

from annotators.llm.completion import redacted
from annotators.llm.tally import Tally
from farm.base.errors import Fruitless
from farm.feedback.pairs import SHARES


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


def questions(tally: Tally) -> dict[str, Any]:
    """How the questions to language models fared, where there were any."""
    if not tally.questions:
        return {}
    counts = {"asked": tally.asked, "known": tally.cached, "retried": tally.retried, "failed": tally.failed}
    unpriced = {"without_a_price": sorted(tally.unpriced)} if tally.unpriced else {}
    return {"questions": {**counts, "not asked": tally.unasked}, "models": sorted(tally.models), **unpriced}


def failures(tables: list[pd.DataFrame]) -> str:
    """Rows without a verdict, for the progress display."""
    failed = sum(int((t["status"] != "ok").sum()) for t in tables)
    return f"{failed:,} without a verdict" if failed else ""


def sentences(summary: dict[str, Any], longest: int = 20) -> str:
    """A plan or a summary for people: one fact a line, and at most so many annotators."""
    facts = {k.replace("_", " "): v for k, v in summary.items() if k != "annotators" and v != []}
    longest_name = max(map(len, facts), default=0)
    lines = [f"{name:<{longest_name}} {_shown(name, value)}" for name, value in facts.items()]
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
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name.replace(" ", "_") in SHARES:
        return f"{100 * value:.4g} %"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
