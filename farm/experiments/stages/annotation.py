"""The training annotator's verdicts on the pairs: the feedback that methods learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from farm.base import progress
from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.pairs import Pairs
from farm.experiments.stages.stage import Asks, Facts, Size, Stage, StageContext
from farm.tables.turns import prompts_of


@dataclass(frozen=True)
class Annotation:
    """``preferences.parquet``: the pairs with a verdict on each, unanswered ones included."""

    setting: Setting
    kind: ClassVar[str] = "annotation"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "annotation"

    def reads(self) -> Sequence[Stage]:
        return (Pairs(self.setting),)

    def describe(self) -> dict[str, Any]:
        return {"annotator": self.setting.description["annotator"]}

    def size(self) -> Size:
        n = self.setting.experiment.sizes.pairs
        return Size(n, like=self.setting.description["annotator"], asks=Asks("annotator", n, "train"))

    def make(self, at: StageContext) -> Facts | None:
        pairs = pd.read_parquet(at.folder(Pairs(self.setting)) / "pairs.parquet")
        with progress.task("annotating"):
            table = making.ask(self.setting, "annotator", pairs)
        making.check_answered(table, "the annotator")
        table.to_parquet(at.place.folder / "preferences.parquet", index=False)
        return making.spent(table)


def preferences(folder: Path) -> pd.DataFrame:
    """The pairs in an annotation's folder that have a verdict."""
    table = pd.read_parquet(folder / "preferences.parquet")
    return table[table["status"] == "ok"].reset_index(drop=True)


def feedback_with_gold(setting: Setting, folder: Path) -> pd.DataFrame:
    """All annotated pairs for the run folder, with the gold utility of both sides where it is known."""
    table = pd.read_parquet(folder / "preferences.parquet")
    if setting.world.truth_known:
        for side in ("1", "2"):
            texts = prompts_of(table), table[f"output_{side}"].tolist()
            table[f"gold_{side}"] = setting.utility(*texts)
    return table
