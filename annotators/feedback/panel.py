"""A panel: several look at every output, and a rule says what they find together.

    any         right where one of them says so          majority    where more than half of them do
    all         where every one does

Of three who find a share p of what is there, any finds 1 - (1 - p)³, the majority p³ + 3 p² (1 - p) and all p³: p = .7
becomes .973, .784 and .343, false alarms of p = .1 become .271, .028 and .001. Auditors of one name draw alike, and are
one auditor whatever the rule (panels of auditors: arXiv 2206.04475).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from annotators.feedback.answers import said_by
from farm.base.bounds import check
from farm.roles.givers import Checker
from farm.tables.records import USAGE_COLUMNS


@dataclass(frozen=True)
class Panel:
    """Asks all of its checkers; costs add up. Where one has no answer there is none, and its status says why."""

    wraps: ClassVar[tuple[str, ...]] = ("checks",)
    annotators: list[Checker]
    rule: Literal["any", "majority", "all"] = "majority"
    name: str = "panel"

    def __post_init__(self) -> None:
        check(self)
        if not self.annotators:
            raise ValueError("a panel needs at least one annotator")

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        said = [one.check(outputs, seed=seed, replicate=replicate) for one in self.annotators]
        for_it = np.sum([table["right"].eq(True).to_numpy() for table in said], axis=0)
        needed = {"any": 1, "majority": len(said) // 2 + 1, "all": len(said)}[self.rule]
        status = np.full(len(outputs), "ok", dtype=object)
        for table in said:
            status = np.where(status == "ok", table["status"].to_numpy(dtype=object), status)
        right = np.where(status == "ok", for_it >= needed, None)
        usage = {c: np.sum([table[c].to_numpy(np.float64) for table in said], axis=0) for c in USAGE_COLUMNS}
        return said_by(self.name, outputs, seed, replicate, right=right, status=status).assign(**usage)
