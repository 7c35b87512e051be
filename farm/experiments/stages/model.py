"""A model fitted to feedback, a reward or preference model: made once, shared by the methods that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages import learning
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.work import Texts


@dataclass(frozen=True)
class ModelStage:
    """``model``: what one of the experiment's models fits."""

    setting: Setting
    name: str
    kind: ClassVar[str] = "model"
    trains: ClassVar[bool] = True
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return self.name.replace("_", " ")

    def reads(self) -> Sequence[Stage]:
        return (*sft(self.setting), *learning.Needed.of(self.setting, self.setting.model_needs(self.name)).stages)

    def describe(self) -> dict[str, Any]:
        s = self.setting
        model, prompts = s.description["models"][self.name], [s.experiment.sizes.prompts, s.sources.labelled_prompts]
        return {**s.start, "model": model, "prompts": prompts, "seed": s.seed}

    def size(self) -> Size:
        spec, needs = self.setting.description["models"][self.name], self.setting.model_needs(self.name)
        n = sum(self.setting.sources.rows(kind) for kind in needs if kind in self.setting.sources.feedback)
        return Size(n, like=spec, texts=Texts(trained=making.epochs(spec) * 2 * n))

    def make(self, at: StageContext) -> Facts | None:
        method = self.setting.fitting(self.name)
        return making.learn(self.name, method, learning.learning(self.setting, method, at), at.place)
