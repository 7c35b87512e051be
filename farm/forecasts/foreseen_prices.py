"""What verdicts will cost where no annotator like these was ever asked: a wing that knows its annotators says.

It is announced through the entry points ``farm.prices``, so the ground imports no wing. The pairs themselves are not
there yet, as a rule: the prompts are the world's own, the outputs as long as its demonstrations are.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pandas as pd

from farm.base.errors import UserError
from farm.experiments.setting import Setting
from farm.experiments.stages.stage import Asks
from farm.storage.store import address
from farm.tables import turns

SHOWN = 1000
"""pairs that the estimate is made on, at most"""
TYPICAL_INSTRUCTION, TYPICAL_OUTPUT = 160, 400
"""characters, where the world's texts are not here; those of AlpacaFarm's evaluation set"""


class ForeseenPrices:
    """Prices of annotation and judgement stages; each annotator is looked at once."""

    def __init__(self) -> None:
        self._sayers = [entry.load() for entry in entry_points(group="farm.prices")]
        self._known: dict[bytes, dict[str, Any] | None] = {}

    def __call__(self, setting: Setting, asks: Asks) -> dict[str, Any] | None:
        """``price`` of what a stage asks for, tokens, ``models``, ``unpriced``; None where it is unknown."""
        if asks.kind != "pairs":  # who knows the prices is shown pairs
            return None
        spec = setting.annotator_description(asks.role)
        key = address(spec, setting.description["world"], asks.split, setting.seed)
        if key not in self._known:
            self._known[key] = self._ask(setting, asks, spec, min(asks.rows, SHOWN))
        found = self._known[key]
        if found is None:
            return None
        scale = asks.rows / found["shown"]
        counted = {k: round(found[k] * scale) for k in ("questions", "input_tokens", "output_tokens")}
        price = None if found["price"] is None else found["price"] * scale
        return {**found, **counted, "price": price}

    def _ask(self, setting: Setting, asks: Asks, spec: Any, n: int) -> dict[str, Any] | None:
        for say in self._sayers:
            found = say(
                spec, lambda: setting.annotator(asks.role), lambda: imagined(setting, asks.split, n), setting.seed
            )
            if found is not None:
                return {**found, "shown": n}
        return None


def imagined(setting: Setting, split: str, n: int) -> pd.DataFrame:
    """Pairs like those there will be."""
    try:
        prompts = turns.prompts_of(setting.world.instructions(split))
    except UserError:  # the data are not here; the dry run says so
        prompts = [f"{i} ".ljust(TYPICAL_INSTRUCTION, "x") for i in range(n)]
    try:
        demonstrations = setting.world.demonstrations(SHOWN)
    except UserError:
        demonstrations = None
    lengths = [TYPICAL_OUTPUT] if demonstrations is None else demonstrations["output"].str.len().tolist()
    rows = np.arange(n)
    sized = np.resize(lengths, 2 * n)
    return pd.DataFrame(
        {
            **turns.columns([prompts[i % len(prompts)] for i in range(n)]),
            "output_1": [f"a{i} ".ljust(k, "x") for i, k in zip(rows, sized[::2], strict=True)],
            "output_2": [f"b{i} ".ljust(k, "x") for i, k in zip(rows, sized[1::2], strict=True)],
            "generator_1": "one",
            "generator_2": "two",
        }
    )
