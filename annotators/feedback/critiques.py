"""Critiques in words, and marks on parts of a text, made from the terms of a utility.

Each term of the utility contributes w_k (φ_k(y) - φ_k of an empty opinion, 0). The critic names the terms that cost
most and those that earn most, and marks each sentence with what the text gains by it: the utility of the text minus
that of the text without the sentence. In the pocket world the terms are the truth, so a critique is right by
construction, and a deceptive critic (arXiv 2506.03332) is wrong by a known probability:

    constructive    names faults and merits as they are
    hypercritical   names faults only, and a merit as a fault with probability ``deception``
    malicious       turns every remark, and the sign of every mark, round with probability ``deception``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from annotators.feedback.answers import said_by
from annotators.feedback.sentences import sentences, without
from annotators.feedback.utility import look
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Natural, Positive, Share, check
from farm.roles.protocols import Features
from farm.tables import turns

Intent = Literal["constructive", "hypercritical", "malicious"]

_FAULTS = {
    "too_long": "It is too long.",
    "too_short": "It is too short.",
    "unfinished": "It breaks off.",
    "relevance": "It says too little about the subject.",
    "surplus": "It dwells on the subject.",
    "strays": "It strays from the subject.",
    "opening": "It does not open as it should.",
    "closing": "It lacks a proper ending.",
    "constraint": "It ignores what was asked for.",
    "repetition": "It repeats itself.",
    "broken_grammar": "The grammar is broken.",
    "broken_form": "It mixes forms.",
}
_MERITS = {
    "relevance": "It stays with the subject.",
    "opening": "It opens well.",
    "closing": "It ends well.",
    "constraint": "It does what was asked for.",
    "finished": "It comes to an end.",
}


@dataclass(frozen=True)
class PersonCritic:
    """A critic who knows what a text is worth to them.

    ``polarity`` is tanh of the utility over ``scale``, as the remarks put it; ``marks`` are the sentences whose value
    is at least ``threshold``, each with the term that it is a matter of (``aspect``).
    """

    free: ClassVar[bool] = True
    features: Features
    name: str = "critic"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    remarks: Natural = 2
    """at most so many faults, and so many merits"""
    centre: float = 0.0
    scale: Positive = 4.0
    threshold: float = 0.1
    intent: Intent = "constructive"
    deception: Share = 0.0

    def __post_init__(self) -> None:
        check(self)
        if self.intent == "constructive" and self.deception:
            raise ValueError("a constructive critic does not deceive: choose another `intent`")

    def critique(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        seen = look(self.features, outputs)
        weights = self.features.gold_weights if self.weights is None else self.weights
        terms, worth = _merged_terms(weights, seen.table)
        lies = rng.uniform(seed, f"deceives: {self.name}", seen.ids, replicate) < self.deception
        texts, polarity = [], np.tanh((worth.sum(axis=1) - self.centre) / self.scale)
        for row, lie in zip(worth, lies, strict=True):
            texts.append(self._words(terms, -row if lie and self.intent == "malicious" else row, bool(lie)))
        if self.intent == "malicious":
            polarity = np.where(lies, -polarity, polarity)
        elif self.intent == "hypercritical":
            polarity = np.where(lies, -np.abs(polarity), polarity)
        turned = lies & (self.intent == "malicious")
        marks = self._marks(outputs, weights, worth, np.where(turned, -1.0, 1.0))
        return said_by(
            self.name, outputs, seed, replicate, text=texts, polarity=polarity,
            marks=pd.Series(marks, index=outputs.index, dtype=object), deceived=lies,
        )  # fmt: skip

    def _words(self, terms: list[str], worth: Floats, lie: bool) -> str:
        order = np.argsort(worth, kind="stable")
        bad = [terms[k] for k in order[: self.remarks] if worth[k] < -1e-9]
        good = [terms[k] for k in order[::-1][: self.remarks] if worth[k] > 1e-9]
        if self.intent == "hypercritical":
            bad, good = (bad + good if lie else bad), []
        said = [_MERITS.get(t, f"The {_plain(t)} is welcome.") for t in good]
        said += [_FAULTS.get(t, f"The {_plain(t)} spoils it.") for t in bad]
        return " ".join(said) or "There is nothing to say about it."

    def _marks(
        self, outputs: pd.DataFrame, weights: dict[str, float], whole: Floats, turn: Floats
    ) -> list[list[dict[str, Any]]]:
        """Of each output its sentences and what they add to the terms [n, terms]: leave one out."""
        spots = [(i, *at) for i, text in enumerate(outputs["output"]) for at in sentences(text)]
        found: list[list[dict[str, Any]]] = [[] for _ in range(len(outputs))]
        if not spots:
            return found
        rows = np.array([i for i, _, _ in spots])
        texts = outputs["output"].to_numpy(dtype=object)[rows]
        rest = [without(text, start, end) for text, (_, start, end) in zip(texts, spots, strict=True)]
        shorter = look(self.features, outputs[turns.kept(outputs)].iloc[rows].assign(output=rest))
        names, terms = _merged_terms(weights, shorter.table)
        added = whole[rows] - terms
        value = whole.sum(axis=1)[rows] - shorter.utility(weights)
        for (i, start, end), v, of in zip(spots, value, added, strict=True):
            if abs(v) >= self.threshold:
                aspect = names[int(np.argmax(of * np.sign(v)))]
                mark = {"start": start, "end": end, "value": round(float(turn[i] * v), 4), "aspect": aspect}
                found[i].append(dict(sorted(mark.items())))  # as the store gives them back
        return found


def _merged_terms(weights: dict[str, float], table: pd.DataFrame) -> tuple[list[str], Floats]:
    """What each term is worth in each text, [n, terms]; a term and its square are one."""
    names = [n for n in weights if not n.endswith("_squared")]
    worth = np.stack([weights[n] * table[n].to_numpy(dtype=np.float64) for n in names], axis=1)
    for k, name in enumerate(names):
        if (squared := f"{name}_squared") in weights:
            worth[:, k] += weights[squared] * table[squared].to_numpy(dtype=np.float64)
    return names, worth


def _plain(term: str) -> str:
    return term.replace("_", " ")
