"""The truth of the pocket world: what a text is worth.

The gold utility is a weighted sum of terms that are computed from the text alone. It is concave where too much of a
thing hurts: with ``f`` sentences of a style it has ``a f - c f²`` (two separate terms, so that a simulated person may
weigh them differently), relevance saturates, surplus length costs quadratically. A reward model trained where texts
are moderate can therefore be led astray where they are not.

The weights are free: the base model is trained on texts, never on their utility, so other weights need no other base
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.tables.turns import Prompt, turns_of
from farm.worlds.pocket.grammar import LIST, STYLE_NAMES, Texts
from farm.worlds.pocket.observations import BRIEF_WORDS, LONG_WORDS, Observations, observe, parse_requests
from farm.worlds.pocket.vocabulary import vocabulary

ENOUGH = 5
"""mentions of the topic beyond which a further one annoys"""

MOST_COUNTED = 8
"""sentences of one style, and repetitions; more make nothing worse, or single texts would rule every mean"""

GOLD_WEIGHTS: dict[str, float] = {
    "relevance": 2.5,
    "surplus": -0.2,
    "strays": -0.6,
    "opening": 1.0,
    "broken_form": -0.4,
    "closing": 0.6,
    "constraint": 1.2,
    "repetition": -0.5,
    "too_long": -1.0,
    "too_short": -1.0,
    "unfinished": -1.5,
    "broken_grammar": -0.4,
}
"""The weights of all terms but the styles."""

STYLE_WEIGHTS: dict[str, tuple[float, float]] = {
    "example": (1.2, -0.35),
    "list": (0.5, -0.15),
    "polite": (0.9, -0.35),
    "praise": (0.7, -0.35),
    "hedge": (0.1, -0.25),
    "joke": (0.5, -0.35),
    "emphasis": (0.5, -0.35),
    "figure": (0.9, -0.35),
    "anecdote": (0.3, -0.3),
    "question": (0.4, -0.35),
    "quote": (0.6, -0.35),
    "filler": (-0.3, -0.15),
}
"""Of each style, the weight of its count f and of f²."""


def terms(seen: Observations) -> dict[str, Floats]:
    """The terms of the utility, [n] each, in the order of :func:`gold_weights`."""
    words = seen.words.astype(np.float64)
    table = {
        "relevance": 1.0 - np.exp(-seen.on_topic / 1.5),
        "surplus": np.maximum(seen.on_topic - ENOUGH, 0.0),
        "strays": seen.off_topic.astype(np.float64),
        "opening": seen.opening.astype(np.float64),
        "broken_form": seen.other_form.astype(np.float64),
        "closing": seen.closing.astype(np.float64),
        "constraint": (seen.constraint > 0).astype(np.float64),
        "repetition": np.minimum(seen.repeated, MOST_COUNTED).astype(np.float64),
        "too_long": (np.clip(words - LONG_WORDS, 0.0, 60.0) / 25.0) ** 2,
        "too_short": np.maximum(BRIEF_WORDS - words, 0.0) / 10.0,
        "unfinished": (~seen.finished).astype(np.float64),
        "broken_grammar": seen.illegal.astype(np.float64),
    }
    for k, name in enumerate(STYLE_NAMES):
        f = np.minimum(seen.styles[:, k], MOST_COUNTED).astype(np.float64)
        table[name] = f
        table[f"{name}_squared"] = f**2
    return table


@dataclass(frozen=True)
class PocketFeatures:
    """The features of the pocket world and its gold weights; ``weights`` changes some of them.

    Raises:
        UserError: when called with an instruction that is no request of this world, or made with an unknown term.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in default_gold_weights():
                raise UserError(
                    f"weights: there is no term `{name}` in the pocket world; {nearest(name, default_gold_weights())}"
                )

    @property
    def gold_weights(self) -> dict[str, float]:
        """The weight of each term in the gold utility."""
        return {**default_gold_weights(), **self.weights}

    def observations(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> Observations:
        """The counts behind the terms, a row a text; of a conversation the request is the first turn."""
        return observe(
            Texts(*vocabulary().encode(outputs)), parse_requests([turns_of(prompt)[0] for prompt in instructions])
        )

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        """One row a text: the terms of ``gold_weights``, ``length`` in words, and ``lists`` (0 or 1)."""
        seen = self.observations(instructions, outputs)
        table = pd.DataFrame(terms(seen))
        table["length"] = seen.words.astype(np.float64)
        table["lists"] = (seen.styles[:, LIST] > 0).astype(np.float64)
        return table

    def utility(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> Floats:
        """The gold utility of each text, [n]."""
        weights = self.gold_weights
        table: Floats = self(instructions, outputs)[list(weights)].to_numpy()
        return np.asarray(table @ np.array(list(weights.values())))


def default_gold_weights() -> dict[str, float]:
    """The weight of every term, as this world is meant."""
    out = dict(GOLD_WEIGHTS)
    for name, (linear, squared) in STYLE_WEIGHTS.items():
        out[name], out[f"{name}_squared"] = linear, squared
    return out
