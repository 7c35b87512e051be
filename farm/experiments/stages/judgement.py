"""Verdicts of one judge on a method's answers against the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from farm.base import progress
from farm.experiments import making
from farm.experiments.experiment import BASELINE
from farm.experiments.setting import SFT, Setting
from farm.experiments.stages.answers import Answers
from farm.experiments.stages.stage import Asks, Facts, Size, Stage, StageContext
from farm.tables import turns


@dataclass(frozen=True)
class Judgement:
    """``annotations.parquet``: output_1 is the baseline's, output_2 the method's."""

    setting: Setting
    role: str
    of: str
    """a method, or SFT"""
    kind: ClassVar[str] = "judgement"
    trains: ClassVar[bool] = False

    @property
    def method(self) -> str | None:
        return None if self.of == SFT else self.of

    def label(self) -> str:
        return f"{self.role} judges {self.of}"

    def reads(self) -> Sequence[Stage]:
        return tuple(dict.fromkeys((Answers(self.setting, self.of), Answers(self.setting, SFT))))

    def describe(self) -> dict[str, Any]:
        e = self.setting.experiment
        judge = self.setting.description["judges"][self.role]
        return {"judge": judge, "least_verdicts": e.least_verdicts, "seed": e.seed}

    def size(self) -> Size:
        e = self.setting.experiment
        n = e.sizes.evaluation * e.sizes.samples
        return Size(n, like=self.setting.description["judges"][self.role], asks=Asks(self.role, n, e.split))

    def make(self, at: StageContext) -> Facts | None:
        table = pd.read_parquet(at.folder(Answers(self.setting, self.of)) / "outputs.parquet")
        pairs = pd.DataFrame(
            {
                "method": self.of,
                "sample": table["sample"],
                **{column: table[column] for column in turns.kept(table)},
                "output_1": pd.read_parquet(at.folder(Answers(self.setting, SFT)) / "outputs.parquet")["baseline"],
                "output_2": table["output"],
                "generator_1": BASELINE,
                "generator_2": self.of,
            }
        )
        pairs = self.setting.further(self.setting.experiment.split).onto(pairs)
        with progress.task(f"{self.role} judges {self.of}"):
            judge = self.setting.annotator(self.role)
            judged = making.ask(self.setting, "pairs", judge, pairs, self.role, at.place)
        making.check_answered(judged, f"{self.role} of {self.of}", self.setting.experiment.least_verdicts)
        judged.to_parquet(at.place.folder / "annotations.parquet", index=False)
        return making.spent(judged)
