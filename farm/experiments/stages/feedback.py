"""Feedback of one kind on the responses, or what the user has of it: what methods and models learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from farm.base import progress
from farm.experiments import making
from farm.experiments.feedback import Asked, From
from farm.experiments.setting import Setting
from farm.experiments.sources import PAIRED
from farm.experiments.stages.learning import answered
from farm.experiments.stages.model import ModelStage
from farm.experiments.stages.responses import ResponsesStage
from farm.experiments.stages.stage import Asks, Facts, Size, Stage, StageContext
from farm.feedback.designs import Design
from farm.feedback.kind import kinds
from farm.feedback.units import of_singles
from farm.roles.protocols import Samples
from farm.tables.turns import prompts_of


@dataclass(frozen=True)
class FeedbackStage:
    """``<kind>.parquet``: what was asked about with the answers, rows without one included."""

    setting: Setting
    of: str
    """a kind of feedback"""
    kind: ClassVar[str] = "feedback"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    @property
    def said(self) -> Asked | From:
        return self.setting.sources.feedback[self.of]

    @property
    def file(self) -> str:
        return f"{self.of}.parquet"

    def label(self) -> str:
        return self.of

    def reads(self) -> Sequence[Stage]:
        if isinstance(self.said, From):
            return ()
        scores = self.scores()
        return (ResponsesStage(self.setting), *([scores] if scores else []))

    def scores(self) -> FeedbackStage | ModelStage | None:
        """Where a design by score has its scores from."""
        by = self.said.by if isinstance(self.said, Asked) else None
        if by is None:
            return None
        return FeedbackStage(self.setting, by) if by in kinds() else ModelStage(self.setting, by)

    def describe(self) -> dict[str, Any]:
        digest = {"given": self.setting.sources.digest(self.of)} if isinstance(self.said, From) else {}
        return {"feedback": self.setting.description["feedback"][self.of], "seed": self.setting.seed, **digest}

    def size(self) -> Size:
        if isinstance(self.said, From):
            return Size(len(self.setting.sources.given(self.of)), like="given")
        n, like = self.setting.sources.rows(self.of), self.setting.description["feedback"][self.of]
        return Size(n, like=like, asks=Asks("annotator", n, "train", self.of))

    def make(self, at: StageContext) -> Facts | None:
        if isinstance(self.said, From):
            table = self.setting.sources.given(self.of)
            table.to_parquet(at.place.folder / self.file, index=False)
            return {"rows": len(table)}
        kind, responses = (
            kinds()[self.of],
            pd.read_parquet(at.folder(ResponsesStage(self.setting)) / "responses.parquet"),
        )
        design = Design(self.said.design or (PAIRED if self.of == "pairs" else ""), self.said.n)
        further = self.setting.further("train")
        texts = responses.drop(columns=further.names, errors="ignore")  # of a prompt, and not of a side
        shown = further.onto(kind.build(self._scored(texts, at), design, self.setting.seed))
        with progress.task(f"asking for {self.of}"):
            giver = self.setting.giver(self.of)
            table = making.ask(self.setting, self.of, giver, shown, role_of(self.of), at.place)
        making.check_answered(table, "the annotator", kind=self.of)
        table.to_parquet(at.place.folder / self.file, index=False)
        return making.spent(table)

    def _scored(self, responses: pd.DataFrame, at: StageContext) -> pd.DataFrame:
        """The responses with the scores that a design asks for."""
        scores = self.scores()
        if scores is None:
            return responses
        if isinstance(scores, ModelStage):
            model, samples = self.setting.model(at.folder(scores)), Samples.from_frame(responses)
            return responses.assign(score=making.scores(model, samples))
        rated = answered(at.folder(scores), scores.of)
        mean = rated.groupby(of_singles(rated))["score"].mean()
        found = responses.assign(score=pd.Series(of_singles(responses)).map(mean).to_numpy())
        return found[found["score"].notna()].reset_index(drop=True)


def role_of(kind: str) -> str:
    """What the draws of who gives it are keyed by."""
    return "annotator" if kind == "pairs" else f"annotator of {kind}"


def feedback_with_gold(setting: Setting, folder: Path, kind: str) -> pd.DataFrame:
    """All feedback of a kind for the run folder, with the gold utility of the texts where it is known."""
    table = pd.read_parquet(folder / f"{kind}.parquet")
    sides = {"": "output", "_1": "output_1", "_2": "output_2"}
    for suffix, output in sides.items() if setting.world.truth_known else ():
        if output in table.columns:
            table[f"gold{suffix}"] = setting.utility(prompts_of(table), table[output].tolist())
    return table
