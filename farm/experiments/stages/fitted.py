"""A reward or preference model fitted to the training feedback: made once, shared by the methods that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.annotation import Annotation
from farm.experiments.stages.learning import learning
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext, Texts


@dataclass(frozen=True)
class RewardModel:
    """``model``: the scorer that ``reward_model`` of the experiment fits."""

    setting: Setting
    kind: ClassVar[str] = "reward model"
    trains: ClassVar[bool] = True
    method: ClassVar[str | None] = None
    role: ClassVar[str] = "reward_model"

    def label(self) -> str:
        return self.kind

    def reads(self) -> Sequence[Stage]:
        return (*sft(self.setting), Annotation(self.setting))

    def describe(self) -> dict[str, Any]:
        return {self.role: self.setting.description[self.role], "seed": self.setting.seed}

    def size(self) -> Size:
        spec, n = self.setting.description[self.role], self.setting.experiment.sizes.pairs
        return Size(n, like=spec, texts=Texts(trained=making.epochs(spec) * 2 * n))

    def make(self, at: StageContext) -> Facts | None:
        method = self.setting.fitting(self.role)
        assert method is not None
        return making.learn(self.role, method, learning(self.setting, method, at, {}), at.place)


@dataclass(frozen=True)
class PreferenceModel(RewardModel):
    """``model``: what ``preference_model`` of the experiment fits, for methods that say ``shared_preference``."""

    kind: ClassVar[str] = "preference model"
    role: ClassVar[str] = "preference_model"


MODELS: dict[str, type[RewardModel]] = {"preference_model": PreferenceModel, "reward_model": RewardModel}
"""what a method may need -> the stage that makes it"""


def fitted(setting: Setting, role: str) -> RewardModel | None:
    """The stage of a role; None where the experiment says null."""
    return None if getattr(setting.experiment, role) is None else MODELS[role](setting)
