"""A judge of pairs by feedback of another kind: what is said of the two outputs implies which is preferred.

    ratings      the one with the higher score          checks       the one that is right, where the other is wrong
    reactions    the one that is liked, where the       rankings     the one that stands first of the two
                 other is not

What does not decide is a tie, and a side without an answer leaves the pair without a verdict. In an experiment it is
written ``judges: {judge: {kind: ratings, annotator: rater}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from annotators.feedback.answers import implied
from farm.asking.givers import name_of
from farm.base.bounds import check
from farm.feedback.designs import singles
from farm.feedback.kind import kind as kind_of
from farm.roles.givers import Giver
from farm.tables import turns
from farm.tables.records import USAGE_COLUMNS, annotation_table, unannotated


@dataclass(frozen=True)
class ByKind:
    """Prefers as its ``annotator``, who gives feedback of a ``kind``, implies.

    Raises:
        ValueError: for an annotator who does not give that kind.
    """

    annotator: Giver
    kind: Literal["ratings", "reactions", "checks", "rankings"] = "ratings"

    def __post_init__(self) -> None:
        check(self)
        if not hasattr(self.annotator, kind_of(self.kind).verb):
            raise ValueError(f"`kind` is {self.kind}, and {name_of(self.annotator)} gives none")

    @property
    def name(self) -> str:
        """That of the annotator."""
        return name_of(self.annotator)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        """What is implied, with the scores of both sides as ``score_1`` and ``score_2``; costs are those of both."""
        pairs, n = unannotated(pairs), len(pairs)
        same = (pairs["output_1"] == pairs["output_2"]).to_numpy()
        if self.kind == "rankings":
            said, score = self._ranked(pairs, seed, replicate)
        else:
            kind = kind_of(self.kind)
            said = getattr(self.annotator, kind.verb)(singles(pairs), seed=seed, replicate=replicate)
            score = said[kind.answer].map(lambda value: np.nan if value is None else float(value))
        preference = np.where(same, 1.5, implied(score, n))
        sides = [said["status"].to_numpy(dtype=object)[place : place + n] for place in range(0, len(said), max(n, 1))]
        status = sides[0] if sides else np.array([], dtype=object)
        for side in sides[1:]:
            status = np.where(status == "ok", side, status)
        status = np.where(np.isnan(preference) & (status == "ok"), "unobserved", status)
        usage: dict[str, Any] = {c: said[c].to_numpy(np.float64).reshape(-1, n).sum(0) for c in USAGE_COLUMNS if n}
        table = annotation_table(
            pairs, self.name, np.where(status == "ok", preference, np.nan), np.full(n, np.nan),
            seed=seed, replicate=replicate, status=status, **usage,
        )  # fmt: skip
        values = score.to_numpy(np.float64)
        return table.assign(score_1=values[:n], score_2=values[n:])

    def _ranked(self, pairs: pd.DataFrame, seed: int, replicate: int) -> tuple[pd.DataFrame, pd.Series]:
        """A ranking of each pair, and scores [2 n] of both sides: 1 of the first, 0 of the other."""
        shown = pairs[turns.kept(pairs)].copy()
        for listed, column in (("outputs", "output"), ("generators", "generator")):
            if f"{column}_1" in pairs.columns:
                both = zip(pairs[f"{column}_1"], pairs[f"{column}_2"], strict=True)
                shown[listed] = pd.Series([list(each) for each in both], pairs.index, dtype=object)
        said = getattr(self.annotator, kind_of(self.kind).verb)(shown, seed=seed, replicate=replicate)
        first = [np.nan if order is None else float(order[0] == 0) for order in said["ranking"]]
        return said, pd.Series([*first, *(1.0 - value for value in first)], dtype=np.float64)
