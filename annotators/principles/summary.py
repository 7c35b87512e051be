"""Principles in sentences, for a terminal."""

from __future__ import annotations

from annotators.principles.mining import Principles
from farm.statistics.uncertainty import Estimate


def sentences(found: Principles) -> str:
    """What the votes seem to follow, and how far that holds."""
    by = f" of {found.annotators:,} annotators" if found.annotators > 1 else ""
    lines = [
        f"{found.votes:,} decisive votes{by}: read off {found.read_off:,} pairs, {found.held_out:,} held out",
        *(
            f"  {k}. {p.principle}  ({p.votes_for:,} for, {p.against:,} against, {p.abstain:,} not told apart"
            + (f", {p.invalid:,} unreadable)" if p.invalid else ")")
            for k, p in enumerate(found.principles.itertuples(), start=1)
        ),
        f"agreement with {found.constitution.n:,} held-out votes (ties count one half):",
        f"  constitution   {_shown(found.constitution)}",
        f"  {found.judge[:40]}   {_shown(found.default)}",
        f"  difference   {_shown(found.difference)}",
    ]
    if found.ceiling.n:
        lines.append(f"  a vote and the majority of the others on its pair   {_shown(found.ceiling)}")
    lines.append(f"no principle decides {100 * found.undecided:.1f} % of the held-out pairs")
    if found.unanswered:
        lines.append(f"{found.unanswered:,} held-out votes are left out: one of the two gave no verdict on their pair")
    return "\n".join(lines)


def _shown(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"
