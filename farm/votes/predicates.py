"""Principles that a program proposes and votes on: "select the response that has more of a feature", or less of it.

A predicate is one feature of the texts (:class:`farm.roles.protocols.Features`) and a direction. It applies to a pair
whose outputs differ in that feature. Features may say in ``described`` what a response does that has more of one, and
what one does that has less: name -> two phrases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.roles.protocols import Features
from farm.tables.turns import prompts_of
from farm.votes.principles import Mining, alike, chosen, counted


class Predicate(BaseModel):
    """A principle of one feature."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    says: str = ""
    """the principle in words, for readers alone"""
    feature: str
    more: bool = True
    """whether it selects the output that has more of the feature, or the one that has less"""


def differences(features: Features, pairs: pd.DataFrame) -> pd.DataFrame:
    """Each feature of ``output_1`` minus that of ``output_2``, a row a pair."""
    prompts = prompts_of(pairs)
    both = features(prompts * 2, [*pairs["output_1"], *pairs["output_2"]])
    first, second = both.iloc[: len(pairs)], both.iloc[len(pairs) :].reset_index(drop=True)
    return first.reset_index(drop=True) - second


def votes(principles: Sequence[Predicate], found: pd.DataFrame) -> Floats:
    """What each principle selects of each pair: 1 the first output, -1 the second, 0 none, from differences: [N, P].

    Raises:
        UserError: for a feature that is not there.
    """
    out = np.zeros((len(found), len(principles)))
    for k, principle in enumerate(principles):
        if principle.feature not in found:
            known = nearest(principle.feature, list(found.columns))
            raise UserError(f"principles: there is no feature `{principle.feature}` of these texts; {known}")
        sign = np.sign(found[principle.feature].to_numpy(np.float64))
        out[:, k] = sign if principle.more else -sign
    return out


def mined(
    features: Features,
    found: pd.DataFrame,
    labels: Floats,
    ids: rng.Ids,
    mining: Mining,
    *,
    seed: int,
    error: float = 0.0,
) -> tuple[list[Predicate], pd.DataFrame]:
    """The constitution of n labelled pairs, best principle first, and how often each votes for the labels.

    Args:
        found: :func:`differences` of the pairs.
        labels: 1 where the first output was preferred, -1 the second, [n].
        ids: of the pairs, [n]: keys of what each proposes.
        error: the probability that a pair proposes anything at all in place of what tells its outputs apart.
    """
    distinct = found[[name for name, kept in _distinct(found).items() if kept]]
    names = list(distinct.columns)
    proposals = _proposed(np.sign(distinct.to_numpy(np.float64)), labels, ids, mining.per_pair, seed, error)
    known = {p.says: p for p in (_predicate(features, names[k], more) for k, more in dict.fromkeys(proposals))}
    said = {(p.feature, p.more): p.says for p in known.values()}
    candidates = [known[s] for s in alike([said[names[k], more] for k, more in proposals], mining.clusters)]
    agree = votes(candidates, found) * labels[:, None]
    rows = chosen(agree, mining)
    return [candidates[row] for row in rows], counted(agree[:, rows])


def _distinct(found: pd.DataFrame) -> dict[str, bool]:
    """Which features are no copies: one that selects as an earlier one does, on every pair, is the same principle."""
    signs = np.sign(found.to_numpy(np.float64)).astype(np.int8)
    seen: set[bytes] = set()
    out = {}
    for k, name in enumerate(found.columns):
        column = signs[:, k].tobytes()
        out[str(name)] = column not in seen
        seen.add(column)
    return out


def _proposed(
    signs: Floats, labels: Floats, ids: rng.Ids, each: int, seed: int, error: float
) -> list[tuple[int, bool]]:
    """What the pairs propose, as (feature, whether more of it): drawn of the features in which the outputs differ."""
    count = signs.shape[1]
    places = np.arange(count, dtype=np.uint64)
    drawn = rng.uniform(seed, "proposed principle", ids[:, None], places[None])
    order = np.argsort(np.where(signs == 0, np.inf, drawn), axis=1)[:, :each]
    rows, out = np.arange(len(signs)), []
    for k in range(order.shape[1]):
        feature, more = order[:, k], signs[rows, order[:, k]] * labels
        if error:
            mistaken = rng.uniform(seed, "mistaken proposal", ids, k) < error
            feature = np.where(mistaken, rng.integers(count, seed, "mistaken feature", ids, k), feature)
            coin = np.where(rng.uniform(seed, "mistaken direction", ids, k) < 0.5, 1.0, -1.0)
            more = np.where(mistaken, coin, more)
        out += [(int(f), bool(m > 0)) for f, m in zip(feature, more, strict=True) if m != 0]
    return out


def _predicate(features: Features, name: str, more: bool) -> Predicate:
    plain = name.replace("_", " ")
    described = getattr(features, "described", {}).get(name, (f"has more {plain}", f"has less {plain}"))
    return Predicate(says=f"Select the response that {described[0 if more else 1]}.", feature=name, more=more)
