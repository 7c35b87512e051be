"""Planted biases read in two ways: by editing texts, and by regression on texts as they come.

    texts      of the pocket grammar, with their gold utility G
    judge      J(y) = G(y) + bias c(y) + noise N(0, 1),   c(y) the amount of praise, of list items or of tens of words
    edit       adds one sentence, or two, of the kind:    mean of [J(e(y)) - J(y) - (G(e(y)) - G(y))] / (c(e(y)) - c(y))
    raw        the same without gold's share
    regression the slope of J on c over the texts as they are

What is read is held against the bias that was planted. Known answer: with c = .6 q + .8 noise and J = q + b c the
regression reads b + .6 and the edit b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from eval.judges.interventions import slope
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, NotNegative
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures
from farm.worlds.pocket.world import DEMONSTRATIONS

ADDED = {
    "praise": ("What a wonderful question! ", ""),
    "list": ("", "\n-"),
    "length": ("", " As we all know, time flies."),
}
"""of what is counted, the text that is put before and behind; of a list item its point follows"""
WORDS = 10.0
"""that are one unit of length"""


@dataclass(frozen=True)
class Planted(Bounded):
    """Tables ``effects`` (a row for each text and edit) and ``readings`` (one row a reading, ``off`` by so much)."""

    counts: Literal["praise", "list", "length"] = "praise"
    bias: float = 1.0
    """utility that the judge adds for one unit"""
    texts: Count = 400
    noise: NotNegative = 1.0

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        requests = grammar.all_requests()
        asked = requests.take(rng.integers(len(requests), seed, "requests", np.arange(self.texts, dtype=np.uint64)))
        prompts = grammar.request_texts(asked).strings()
        plain = grammar.write(asked, DEMONSTRATIONS, seed, "planted biases").strings()
        said = [plain, *(self.edited(plain, asked, times, seed) for times in (1, 2))]
        gold, amount, judged = zip(*(self.seen(prompts, texts, seed) for texts in said), strict=True)
        parts = []
        for times in (1, 2):
            unit = amount[times] - amount[0]
            raw, share = (judged[times] - judged[0]) / unit, (gold[times] - gold[0]) / unit
            number = [f"text {k}" for k in range(self.texts)]
            for method, value in (("edit", raw - share), ("raw", raw), ("none", np.zeros(self.texts))):
                parts.append(pd.DataFrame({"method": method, "instruction": number, "effect": value}))
        effects = pd.concat(parts, ignore_index=True)
        readings = effects[effects["method"] != "none"].groupby("method")["effect"].mean().to_dict()
        readings["regression"] = slope(judged[0], amount[0])
        table = pd.DataFrame({"method": list(readings), "reading": list(readings.values())})
        return {"effects": effects, "readings": table.assign(off=(table["reading"] - self.bias).abs())}

    def edited(self, texts: list[str], asked: grammar.Requests, times: int, seed: int) -> list[str]:
        """The texts with so many sentences more."""
        before, behind = ADDED[self.counts]
        if self.counts != "list":
            return [before * times + text + behind * times for text in texts]
        points = grammar.Quality(1.0, 1.0, 0.0, 0.0, opening=0.0, points=0.0, style=0.0, burst=0.0)
        more = [grammar.write(asked, points, seed, f"points {k}").strings() for k in range(times)]
        return [
            text + "".join(f"{behind} {point}" for point in added) for text, *added in zip(texts, *more, strict=True)
        ]

    def seen(self, prompts: list[str], texts: list[str], seed: int) -> tuple[Floats, Floats, Floats]:
        """Gold utility, amount and the judge's score of each text, [n]."""
        features = PocketFeatures()
        gold = features.utility(prompts, texts)
        seen = features.observations(prompts, texts)  # the features themselves count no more than eight of a style
        of_style = None if self.counts == "length" else grammar.STYLE_NAMES.index(self.counts)
        amount = seen.words / WORDS if of_style is None else seen.styles[:, of_style].astype(np.float64)
        noise = rng.normal(seed, "judge", rng.combine(rng.text_ids(prompts), rng.text_ids(texts)))
        return gold, amount, gold + self.bias * amount + self.noise * noise
