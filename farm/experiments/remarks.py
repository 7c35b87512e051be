"""What is said at the end of a run of its feedback and its verdicts, beside the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from farm.base import progress
from farm.experiments.feedback import Asked
from farm.experiments.sources import Sources
from farm.feedback.kind import kinds
from farm.roles.protocols import Comparison
from farm.tables.records import unanswered

FEW = 0.9
"""different questions as a share of the rows, below which it is said"""


def tell_missing(comparison: Comparison, variant: str = "") -> None:
    """Say how many verdicts each judge did not give."""
    for role, table in comparison.annotations.items():
        differing, missing = unanswered(table)
        if missing:
            why = ", ".join(f"{count:,} {status}" for status, count in missing.items())
            of = f" of {variant}" if variant else ""
            progress.note(f"{role}{of}: {sum(missing.values()):,} of {differing:,} verdicts are missing ({why})")


def tell_repeated(feedback: Mapping[str, pd.DataFrame], sources: Sources) -> None:
    """Say where rows of training feedback are fewer questions: an answer is drawn by what is asked, and so once."""
    for kind, table in feedback.items():
        different = len(np.unique(kinds()[kind].unit(table)))
        if isinstance(sources.feedback[kind], Asked) and different < FEW * len(table):
            progress.note(
                f"{kind}: {len(table):,} rows are {different:,} different questions, and what is asked again is "
                "answered alike; a world with more prompts asks more"
            )
