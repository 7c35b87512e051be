"""The simulated annotator: one logit, then a channel.

For a pair (y1, y2) answering x, with utilities u(x, y) = Σ_k w_k φ_k(x, y) of the features φ:

    ℓ = (u(y1) - u(y2)) / T                      temperature T
      + κ s(y1, y2)                              cycles: s(y1, y2) = v(y1) × v(y2) = sin(angle from y1 to y2)
      + b                                        position: for the output shown first
      + γ tanh((|y1| - |y2|) / s)                length in words; or γ ln(|y1| / |y2|)
      + g (list(y1) - list(y2))                  lists
      + e (own(y1) - own(y2))                    self-enhancement: outputs of the annotator's own model
      + a (agree(y1) - agree(y2))                sycophancy: outputs that agree with the user
      + σ (q(y1) - q(y2)) / √2                   latent quality q ~ N(0, 1) of a text, the same to all annotators
      + τ (o_t(y1) - o_t(y2)) / √2               this annotator's own opinion o_t ~ N(0, 1) of a text on occasion t

and the label is drawn from the channel of ℓ (annotators/people/channel.py): link, ties, flip, lapse, or the likeliest
answer without a draw (``greedy``). The cyclic term is the rotation term of general preference models (arXiv
2410.02197): no utility explains it. Latent quality stands for what people see in a text and no feature tells: with it
alone a crowd votes on any pair, easy ones and hard ones. Opinions of two occasions t and t' (replicates) have the
correlation ρ^|t - t'|: a persistent taste at ρ = 1, a drift (AR(1)) below, which test-retest agreement shows. Names of
the biases are those of the LLM-as-a-judge literature (arXiv 2306.05685).

The draw is keyed by (seed, annotator, instruction, the unordered pair, replicate) and made in a canonical order of the
two outputs: without a position bias, swapping the outputs mirrors the label exactly. Identical outputs are a tie
without a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.people import channel
from annotators.people.pair_features import PairFeatures, Rows
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import NotNegative, Positive, Share, check
from farm.roles.protocols import Features
from farm.tables.records import PairIds, annotation_table, unannotated


@dataclass(frozen=True)
class LogitAnnotator:
    """A programmatic annotator of any text whose features can be computed.

    Raises:
        ValueError: for a parameter outside its range.
        UserError: when annotating, if a weighted feature, or a column that a bias needs, is absent.
    """

    free: ClassVar[bool] = True
    features: Features
    name: str = "logit"
    """keys the draws, and stands in the column ``annotator``"""
    weights: dict[str, float] | None = None
    """utility weight of each feature; features not named weigh nothing. Default: the gold weights of the features"""
    temperature: Positive = 1.0
    """utility that makes one unit of logit: towards 0 an oracle, towards infinity a coin"""
    position_bias: float = 0.0
    """logit added for the output shown first"""
    length_bias: float = 0.0
    length_scale: Positive = 15.0
    """words at which the length bias begins to saturate (shape "tanh")"""
    length_shape: Literal["tanh", "log"] = "tanh"
    list_bias: float = 0.0
    cycle: float = 0.0
    """strength of the cyclic term, in logits"""
    cycle_terms: tuple[str, str] | None = None
    """two features that place a text on the plane of the cycle; by default a place on the circle drawn for the text"""
    self_enhancement: float = 0.0
    own_generator: str = ""
    """the generator that is the annotator's own model; by default the annotator's name"""
    sycophancy: float = 0.0
    """needs the columns ``agreement_1`` and ``agreement_2``, or a feature ``agreement``"""
    latent_spread: NotNegative = 0.0
    """standard deviation σ of the margin that latent qualities give a pair, in logits; no seed changes a quality"""
    opinion_spread: NotNegative = 0.0
    """standard deviation τ of the margin that the annotator's own opinions give a pair, in logits"""
    opinion_persistence: Share = 1.0
    """correlation ρ of the opinions of one replicate and the next"""
    link: channel.Link = "logistic"
    ties: channel.TieModel = "band"
    tie_width: NotNegative = 0.0
    """half-width δ of the band, ln θ of Rao and Kupper, or ν of Davidson; 0 is no ties"""
    tie_spread: NotNegative = 0.0
    """standard deviation of the logarithm of the tie width from pair to pair: some pairs invite "equal" from all"""
    flip: Share = 0.0
    lapse: Share = 0.0
    greedy: bool = False
    """give the likeliest answer instead of a draw"""

    def __post_init__(self) -> None:
        check(self)
        if self.greedy and (self.flip or self.lapse):
            raise ValueError("a greedy annotator draws nothing, so `flip` and `lapse` cannot act; wrap it in Flip")

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        ids = PairIds(pairs)
        return judge([self], np.zeros(len(pairs), np.int64), pairs, ids, seed=seed, replicate=replicate)


def judge(
    annotators: Sequence[LogitAnnotator],
    which: NDArray[np.int64],
    pairs: pd.DataFrame,
    ids: PairIds,
    *,
    seed: int,
    replicate: int | rng.Ids = 0,
) -> pd.DataFrame:
    """Annotations of n pairs by several annotators with the same features; ``which`` [n] says who gets which row.

    The same table as every annotator's own on their rows, but each distinct text is looked at once for all of them;
    ``replicate`` is one for all rows, or [n].
    """
    seen = PairFeatures(annotators[0].features, pairs, ids)
    label = np.empty(len(pairs))
    p_first = np.empty(len(pairs))
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(annotators) + 1))
    for annotator, start, end in zip(annotators, bounds[:-1], bounds[1:], strict=True):
        rows: Rows = slice(None) if end - start == len(pairs) else order[start:end]
        occasion = replicate[rows] if isinstance(replicate, np.ndarray) else replicate
        width: float | Floats = annotator.tie_width
        if annotator.tie_spread:
            width = width * np.exp(annotator.tie_spread * rng.normal(0, "tie width", ids.pair[rows]))
        chances = channel.noisy(
            channel.outcomes(logit(annotator, seen, rows, occasion), annotator.link, annotator.ties, width),
            annotator.flip,
            annotator.lapse,
        )
        p_first[rows] = chances.p_first
        if annotator.greedy:
            label[rows] = channel.decide(chances)
        else:
            name = rng.text_id(annotator.name)
            label[rows] = channel.draw(chances, rng.uniform(seed, "label", name, ids.pair[rows], occasion))
    label[ids.identical], p_first[ids.identical] = 1.5, 0.5
    names = np.array([a.name for a in annotators], dtype=object)[which]
    return annotation_table(
        pairs,
        names,
        np.where(ids.swapped, 3.0 - label, label),
        np.where(ids.swapped, 1.0 - p_first, p_first),
        seed=seed,
        replicate=replicate,
    )


def logit(
    annotator: LogitAnnotator, seen: PairFeatures, rows: Rows = slice(None), replicate: int | rng.Ids = 0
) -> Floats:
    """The annotator's logits of these rows, positive for the canonically first output; ``replicate`` is theirs."""
    weights = annotator.features.gold_weights if annotator.weights is None else annotator.weights
    seen.require(weights, f"annotator {annotator.name}")
    total = annotator.position_bias * seen.shown_first(rows)
    for name, weight in weights.items():  # a matrix product would round differently in batches of another size
        total += (weight / annotator.temperature) * seen.difference(name, rows)
    if annotator.cycle:
        total += annotator.cycle * _cyclic(annotator, seen, rows)
    if annotator.length_bias:
        seen.require(["length"], f"the length bias of {annotator.name}")
        total += annotator.length_bias * length_term(
            *seen.sides("length", rows), annotator.length_shape, annotator.length_scale
        )
    if annotator.list_bias:
        seen.require(["lists"], f"the list bias of {annotator.name}")
        total += annotator.list_bias * seen.difference("lists", rows)
    if annotator.self_enhancement:
        total += annotator.self_enhancement * seen.own(annotator.own_generator or annotator.name, rows)
    if annotator.sycophancy:
        total += annotator.sycophancy * seen.agreement(rows)
    if annotator.latent_spread:
        first, second = (latent_quality(ids) for ids in seen.text_ids_of(rows))
        total += annotator.latent_spread * np.sqrt(0.5) * (first - second)
    if annotator.opinion_spread:
        first, second = (_opinion(annotator, ids, replicate) for ids in seen.text_ids_of(rows))
        total += annotator.opinion_spread * np.sqrt(0.5) * (first - second)
    return total


def latent_quality(texts: rng.Ids) -> Floats:
    """The quality, standard normal, that every annotator sees in these texts (ids of instruction and output)."""
    return rng.normal(0, "latent quality", texts)


def _opinion(annotator: LogitAnnotator, texts: rng.Ids, replicate: int | rng.Ids) -> Floats:
    """A stationary AR(1) of standard normals over the replicates 0 .. ``replicate``, for each text."""
    name, keep = rng.text_id(annotator.name), annotator.opinion_persistence
    opinion = rng.normal(0, "opinion", name, texts, 0)
    for occasion in range(1, int(np.max(replicate, initial=0)) + 1 if keep < 1 else 1):
        later = keep * opinion + np.sqrt(1 - keep**2) * rng.normal(0, "opinion", name, texts, occasion)
        opinion = np.where(occasion <= replicate, later, opinion)
    return opinion


def length_term(first: Floats, second: Floats, shape: str, scale: float) -> Floats:
    """The length bias of weight 1: tanh of the difference over ``scale``, or the log of the ratio (plus one word)."""
    if shape == "tanh":
        return np.tanh((first - second) / scale)
    return np.log1p(first) - np.log1p(second)


def cyclic_term(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Floats:
    """The cross product v(y1) × v(y2) of two places on the plane: antisymmetric, and no difference of utilities."""
    return first[0] * second[1] - first[1] * second[0]


def _cyclic(annotator: LogitAnnotator, seen: PairFeatures, rows: Rows) -> Floats:
    if annotator.cycle_terms is None:
        angles = [2 * np.pi * rng.uniform(0, "place on the circle", ids) for ids in seen.text_ids_of(rows)]
        first, second = ((np.cos(angle), np.sin(angle)) for angle in angles)
        return cyclic_term(first, second)
    seen.require(annotator.cycle_terms, f"the cycle of {annotator.name}")
    one, other = (seen.sides(name, rows) for name in annotator.cycle_terms)
    return cyclic_term((one[0], other[0]), (one[1], other[1]))
