"""The papers as a table: on the terminal, and as docs/papers.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from farm.base.progress import printable
from farm.experiments.claims import paper as papers
from farm.experiments.claims import recorded
from farm.experiments.claims.paper import PREFIX
from farm.experiments.claims.recorded import Result, Seen

WIDTH = 80
"""columns of a terminal"""

HEAD = """# Papers: what they claim, and what is seen here

Each paper below is one file in `configs/papers/`: its claims, its controls and the experiments that test them,
written before the run unless its notes say otherwise. `farm run papers/NAME` runs it (other seeds by
`--set seeds=[4,5,6]`), `farm papers` prints this table. A claim compares two cells of a run; the interval is at 95 %
over seeds and instructions. **shown**: the interval lies on the claimed side of 0; **not shown**: it holds 0;
**contradicted**: it lies on the other side;
**void**: a control failed, so that the experiment says nothing; **stated**: repeated from the paper, not tested.
These are small worlds: what is shown here is that the mechanism does what the paper says of it, not the paper's
numbers. This file is generated (`farm papers --markdown`).
"""

NOT_RUN_AGAIN = """
## What has no honest counterpart here

- Error Feedback Reloaded (arXiv 2402.10774): gradients are compressed; processes here send whole ones.
- DSO (arXiv 2503.22677): generators of shapes; its loss has no bound for a language model.
- OnPro (arXiv 2308.00301): replay by prototypes of classes, of which preferences have none.
- SRA-CL (arXiv 2503.04162): neighbours as positives of a reward model would be a guess, not the paper.
- Learning to Relax (arXiv 2310.02246): a bandit over a hyper-parameter is what `sweep: random` does.
"""


def rows(names: Iterable[str] | None = None) -> list[dict[str, str]]:
    """What docs/papers.md begins with: a row a claim."""
    return [
        {
            "paper": row["name"],
            "claim": row["claim"],
            "seen here": _seen(row),
            "verdict": row["verdict"] or "not run",
            "minutes": "" if row["minutes"] is None else f"{row['minutes']:.1f}",
        }
        for row in recorded.table(names)
    ]


def listing(names: Iterable[str] | None = None) -> str:
    """What `farm papers` prints: papers, and below each its claims, at most 80 columns wide."""
    lines: list[str] = []
    for name, claims in groupby(recorded.table(names), key=lambda row: row["name"]):
        first, *others = claims
        minutes = "" if first["minutes"] is None else f", {first['minutes']:.1f} minutes"
        lines += [*_wrapped(f"{name}{minutes}: {first['title']}", "", "  ")]
        for row in (first, *others):
            lines += _claim(row["verdict"] or "not run", _seen(row), row["claim"])
    return "\n".join(lines)


def seen(result: Result) -> str:
    """What a run of a paper prints: its claims, then the controls."""
    lines = _wrapped(result.title, "", "  ")
    for kind, many in (("", result.claims), ("control: ", result.controls)):
        for one in many:
            lines += _claim(one.verdict, _seen(one.model_dump()), kind + one.text)
    return "\n".join(lines)


def _claim(verdict: str, number: str, text: str) -> list[str]:
    """A verdict with its number, and below it what it is about."""
    return [f"  {verdict:<12}  {number}".rstrip(), *_wrapped(text, "    ", "    ")]


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def markdown() -> str:
    """docs/papers.md."""
    parts = [HEAD, "| paper | claim | seen here | verdict | minutes |", "|---|---|---|---|---|"]
    parts += [f"| {' | '.join(_escaped(cell) for cell in row.values())} |" for row in rows()]
    for name in papers.names():
        planned = papers.load(PREFIX + name)
        paper, found = planned.paper, recorded.current(planned)
        arxiv = f" (arXiv {paper.arxiv})" if paper.arxiv else ""
        parts += [
            "",
            f"## {paper.title}{arxiv}",
            "",
            f"{paper.claim.rstrip('.')}. File: `configs/papers/{name}.yaml`.",
            "",
        ]
        numbers = {claim.text: claim.paper for claim in paper.claims if claim.paper}
        numbers |= {claim.text: claim.paper for claim in paper.stated if claim.paper}
        if found is not None:
            parts += [*map(_line, found.claims), *(_line(control, "control: ") for control in found.controls), ""]
            parts.append(_run(found))
        parts += [f"In the paper ({text}): {said}." for text, said in numbers.items()]
        parts += ["", paper.notes.strip()] if paper.notes else []
    return "\n".join(parts).rstrip() + "\n" + NOT_RUN_AGAIN


def _line(seen: Seen, kind: str = "") -> str:
    number = _seen(seen.model_dump())
    return f"- {kind}{seen.text}: {number + ', ' if number else ''}**{seen.verdict}**"


def _run(found: Result) -> str:
    seeds = ", ".join(map(str, found.seeds))
    return f"Seeds {seeds}; {found.minutes:.1f} minutes of stages; version {found.version}, {found.date}."


def _seen(row: dict[str, Any]) -> str:
    """An effect with its interval, and what it is made of."""
    if row["effect"] is None:
        return ""
    interval = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{row['effect']:+.3f}{interval}, n {row['n']:,}, {row['seeds']} seeds"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
