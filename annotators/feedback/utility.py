"""The utility that a simulated person sees in single outputs, from which all kinds of feedback are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotators.people.logit import latent_quality
from farm.base import rng
from farm.base.arrays import Floats, Ints
from farm.base.errors import UserError, nearest
from farm.roles.protocols import Features
from farm.tables import turns


@dataclass(frozen=True)
class Seen:
    """n outputs: their ids (of instruction and output), their features, and what a person makes of them."""

    ids: rng.Ids
    table: pd.DataFrame

    def utility(self, weights: dict[str, float], latent: float = 0.0) -> Floats:
        """Σ w φ, and ``latent`` times the latent quality (annotators/people/logit.py), [n]."""
        total = np.zeros(len(self.ids))
        for name, weight in weights.items():
            total += weight * self.features([name])[:, 0]
        return total + latent * latent_quality(self.ids) if latent else total

    def features(self, names: list[str]) -> Floats:
        """These features, [n, k]. Raises UserError for one that there is not."""
        for name in names:
            if name not in self.table.columns:
                raise UserError(f"there is no feature `{name}`; {nearest(name, self.table.columns)}")
        return self.table[names].to_numpy(dtype=np.float64)


def look_within(features: Features, groups: pd.DataFrame) -> tuple[Seen, Ints]:
    """All ``outputs`` of lists, one list after the other, and how many each has, [n]."""
    size = groups["outputs"].map(len).to_numpy(dtype=np.int64)
    each = groups[turns.kept(groups)].iloc[np.repeat(np.arange(len(groups)), size)]
    return look(features, each.assign(output=[text for listed in groups["outputs"] for text in listed])), size


def look(features: Features, outputs: pd.DataFrame) -> Seen:
    """The outputs as a person sees them; each distinct text is looked at once."""
    ids = rng.combine(turns.row_ids(outputs), rng.text_ids(outputs["output"]))
    codes, first = np.unique(ids, return_index=True)
    distinct = outputs.iloc[first]
    table = features(turns.prompts_of(distinct), distinct["output"].tolist())
    return Seen(ids, table.iloc[np.searchsorted(codes, ids)].reset_index(drop=True))
