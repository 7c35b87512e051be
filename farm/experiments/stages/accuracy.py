"""How often each model agrees with the judges, and with the truth, on held-out instructions.

Each model says which of two responses that it never saw is better, the SFT policy's answer or the baseline's; the
judges have said so already (they judge SFT like any method), and where the truth is known the gold utility does. A
model that reads a context (its setting ``context``) is asked in the one that the judge says, and compared with those
judges alone who say one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import UserError
from farm.experiments import making
from farm.experiments.setting import SFT, Setting
from farm.experiments.stages.answers import Answers
from farm.experiments.stages.judgement import Judgement
from farm.experiments.stages.model import ModelStage
from farm.experiments.stages.sft import sft, sft_policy
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.protocols import PreferenceModel, Samples, Scorer
from farm.roles.work import Texts
from farm.statistics.uncertainty import SHARE, mean
from farm.tables.turns import Prompt, in_context, prompts_of

GOLD = "gold utility"
"""whom a model is compared with besides the judges"""


@dataclass(frozen=True)
class AccuracyStage:
    """``accuracy.parquet``: one row for each model, whom it is compared with, and held-out pair: ``model, of,
    instruction, sample, margin`` (how far the model puts the SFT policy's answer above the baseline's), ``agrees`` (1
    or 0; 1/2 where the model is undecided, NaN where the other is)."""

    setting: Setting
    kind: ClassVar[str] = "accuracy"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "accuracy"

    def reads(self) -> Sequence[Stage]:
        judged = (Judgement(self.setting, role, SFT) for role in self.setting.experiment.judges)
        models = (ModelStage(self.setting, name) for name in self.setting.models_needed)
        return (*sft(self.setting), Answers(self.setting, SFT), *judged, *models)

    def describe(self) -> dict[str, Any]:
        return {"judges": list(self.setting.experiment.judges), "models": self.setting.models_needed}

    def size(self) -> Size:
        sizes = self.setting.experiment.sizes
        n = sizes.evaluation * sizes.samples * len(self.setting.models_needed)
        return Size(n, texts=Texts(read=2 * n))

    def make(self, at: StageContext) -> Facts | None:
        s, answers = self.setting, pd.read_parquet(at.folder(Answers(self.setting, SFT)) / "outputs.parquet")
        prompts, policy = prompts_of(answers), sft_policy(s, at)

        def sides(prompts: Sequence[Prompt]) -> tuple[Samples, Samples]:
            ours, baseline = (policy.encode(prompts, answers[side].tolist()) for side in ("output", "baseline"))
            return ours, baseline

        ours, baseline = sides(prompts)
        others: dict[str, NDArray[np.float64]] = {}
        said: dict[str, pd.DataFrame] = {}
        for role in s.experiment.judges:
            said[role] = pd.read_parquet(at.folder(Judgement(s, role, SFT)) / "annotations.parquet")
            others[role] = said[role]["preference"].to_numpy(dtype=np.float64, na_value=np.nan) - 1.5
        if s.world.truth_known:
            others[GOLD] = s.utility(prompts, ours.outputs) - s.utility(prompts, baseline.outputs)
        tables = []
        for name in s.models_needed:
            model, context = s.model(at.folder(ModelStage(s, name))), getattr(s.fitting(name), "context", None)
            margin = None if context else margins(model, ours, baseline)
            for who, other in others.items():
                if context:
                    if who not in said or context not in said[who].columns:
                        continue
                    margin = margins(model, *sides(list(map(in_context, said[who][context], prompts))))
                assert margin is not None
                decided = np.where(np.isnan(other) | (other == 0), np.nan, 1.0)
                agrees = decided * (0.5 + 0.5 * np.sign(margin) * np.sign(np.nan_to_num(other)))
                rows = answers[["instruction", "sample"]].assign(model=name, of=who, margin=margin, agrees=agrees)
                tables.append(s.further(s.experiment.split).onto(rows, prompts))
        if not tables:
            raise UserError("accuracy: the models read a context and no judge says one; take a contextual judge")
        pd.concat(tables, ignore_index=True).to_parquet(at.place.folder / "accuracy.parquet", index=False)
        return None


def margins(model: Scorer | PreferenceModel, first: Samples, second: Samples) -> NDArray[np.float64]:
    """How far a model puts the first of two responses above the second, [n]: of scores, or as log-odds."""
    if isinstance(model, Scorer):
        return making.scores(model, first) - making.scores(model, second)
    return making.in_batches(model.logits, first, second)


def summary(accuracy: pd.DataFrame) -> pd.DataFrame:
    """One row for each model and whom it is compared with: the share with its interval, clustered by instruction."""
    rows = []
    for (name, who), part in accuracy.groupby(["model", "of"], sort=False):
        known = part[part["agrees"].notna()]
        found = mean(known["agrees"].to_numpy(np.float64), known["instruction"], bounds=SHARE)
        shown = {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high, "n": found.n}
        rows.append({"model": name, "of": who, **shown, "undecided": int(part["agrees"].isna().sum())})
    return pd.DataFrame(rows)
