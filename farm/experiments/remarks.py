"""What is said at the end of a run of its feedback and its verdicts, beside the report."""

from __future__ import annotations

from farm.base import progress
from farm.roles.protocols import Comparison
from farm.tables.records import unanswered


def tell_missing(comparison: Comparison, variant: str = "") -> None:
    """Say how many verdicts each judge did not give."""
    for role, table in comparison.annotations.items():
        differing, missing = unanswered(table)
        if missing:
            why = ", ".join(f"{count:,} {status}" for status, count in missing.items())
            of = f" of {variant}" if variant else ""
            progress.note(f"{role}{of}: {sum(missing.values()):,} of {differing:,} verdicts are missing ({why})")
