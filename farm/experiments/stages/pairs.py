"""Pairs of SFT responses to training instructions: what the training annotator is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.sft import sft, sft_policy
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext, Texts
from farm.roles.protocols import Samples
from farm.tables import turns
from farm.tables.turns import prompts_of


@dataclass(frozen=True)
class Pairs:
    """``pairs.parquet``: one row a pair, with the token columns of both sides."""

    setting: Setting
    kind: ClassVar[str] = "pairs"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "pairs"

    def reads(self) -> Sequence[Stage]:
        return sft(self.setting)

    def describe(self) -> dict[str, Any]:
        e = self.setting.experiment
        return {**self.setting.start, "pairs": e.sizes.pairs, "temperature": e.temperature, "seed": e.seed}

    def size(self) -> Size:
        n = 2 * self.setting.experiment.sizes.pairs
        return Size(n, texts=Texts(written=n))

    def make(self, at: StageContext) -> Facts | None:
        s, e = self.setting, self.setting.experiment
        train = s.world.instructions("train")
        rows = np.arange(e.sizes.pairs) % len(train)
        known = prompts_of(train)
        prompts = [known[row] for row in np.repeat(rows, 2)]
        policy, temperature, file = sft_policy(s, at), e.temperature, at.place.progress
        samples = making.sample(s, policy, prompts, "pairs", temperature, "sampling pairs", file)
        table = _pair_table(samples.select(range(0, len(samples), 2)), samples.select(range(1, len(samples), 2)))
        table.to_parquet(at.place.folder / "pairs.parquet", index=False)
        return None


def _pair_table(first: Samples, second: Samples) -> pd.DataFrame:
    sides = []
    for number, samples in enumerate((first, second), start=1):
        frame = samples.frame("sft")
        shared = [*turns.kept(frame), "prompt_tokens"]
        sides.append(frame.rename(columns={c: f"{c}_{number}" for c in frame.columns if c not in shared}))
    return pd.concat([sides[0], sides[1].drop(columns=shared)], axis=1)
