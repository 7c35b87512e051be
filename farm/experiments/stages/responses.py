"""Responses to training instructions: what feedback is given on, made once and shared by all kinds of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.sft import sft, sft_policy
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.work import Texts
from farm.tables.further import further
from farm.tables.turns import prompts_of, row_ids


@dataclass(frozen=True)
class ResponsesStage:
    """``responses.parquet``: an output table with the tokens, and ``draw`` (which draw of its writer's for the
    instruction), ``group`` (responses put together have the same), ``writer`` and further columns, of the instruction
    and of given responses."""

    setting: Setting
    kind: ClassVar[str] = "responses"
    trains: ClassVar[bool] = False
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "responses"

    def reads(self) -> Sequence[Stage]:
        return sft(self.setting)

    def describe(self) -> dict[str, Any]:
        e, said = self.setting.experiment, self.setting.sources.responses
        what: dict[str, Any] = {"prompts": said.prompts, "per_prompt": said.per_prompt, "writers": said.writers}
        if said.source is not None:
            what = {"given": self.setting.sources.digest("responses")}
        return {**self.setting.start, **what, "temperature": said.temperature, "seed": e.seed}

    def size(self) -> Size:
        n = self.setting.sources.number_of_responses
        return Size(n, texts=Texts(written=0 if self.setting.sources.responses.source else n))

    def make(self, at: StageContext) -> Facts | None:
        table = self._written(at) if self.setting.sources.responses.source is None else self._given(at)
        table = self.setting.further("train").onto(table)
        table.to_parquet(at.place.folder / "responses.parquet", index=False)
        return None

    def _written(self, at: StageContext) -> pd.DataFrame:
        s, said = self.setting, self.setting.sources.responses
        known, tables = prompts_of(s.world.instructions("train")), []
        group = np.repeat(np.arange(said.prompts or 0), said.per_prompt)
        prompts = [known[row % len(known)] for row in group]
        for writer in said.writers:
            policy = sft_policy(s, at) if writer == "sft" else s.base
            # Draws of the SFT policy are as they were when responses were nothing but pairs.
            purpose = "pairs" if writer == "sft" else f"responses of {writer}"
            shown = f"sampling responses of {writer}"
            samples = making.sample(s, policy, prompts, purpose, said.temperature or 1.0, shown, at.place.progress)
            table = samples.frame(writer).assign(group=group, writer=writer)
            tables.append(table.assign(draw=table.groupby(row_ids(table)).cumcount()))
        return pd.concat(tables).sort_values("group", kind="stable", ignore_index=True)

    def _given(self, at: StageContext) -> pd.DataFrame:
        """The user's outputs, encoded: they have no tokens."""
        given = self.setting.sources.given_responses
        samples = sft_policy(self.setting, at).encode(prompts_of(given), given["output"].tolist())
        table = samples.frame("").assign(generator=given["generator"], writer=given["generator"])
        table = table.assign(**{name: given[name].to_numpy() for name in further(given)})
        table["draw"] = table.groupby([row_ids(table), table["writer"].to_numpy()]).cumcount()
        return table.assign(group=pd.factorize(row_ids(table))[0])
