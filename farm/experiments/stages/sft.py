"""The SFT policy, from demonstrations: where every method starts, and the reference of every KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from farm.base.errors import UserError
from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.stage import Facts, Size, StageContext
from farm.roles.protocols import Learning, Policy
from farm.roles.work import Texts


@dataclass(frozen=True)
class Sft:
    setting: Setting
    kind: ClassVar[str] = "sft"
    trains: ClassVar[bool] = True
    method: ClassVar[str | None] = None

    def label(self) -> str:
        return "sft"

    def reads(self) -> tuple[()]:
        return ()

    def describe(self) -> dict[str, Any]:
        return self.setting.start

    def size(self) -> Size:
        spec, n = self.setting.description["sft"], self.setting.experiment.sizes.demonstrations
        return Size(n, like=spec, texts=Texts(trained=making.epochs(spec) * n))

    def make(self, at: StageContext) -> Facts | None:
        s = self.setting
        demonstrations = s.world.demonstrations(s.experiment.sizes.demonstrations)
        if demonstrations is None:
            raise UserError(f"{s.origin}: this world has no demonstrations; set `sft: null`")
        learning = Learning(
            seed=s.seed, policy=s.base, prompts=demonstrations, demonstrations=demonstrations, gold=s.gold
        )
        return making.learn("sft", s.fitting("sft"), learning, at.place)


def sft(setting: Setting) -> tuple[Sft, ...]:
    """The stage that makes the SFT policy; none where the base policy is used as it is."""
    return () if setting.experiment.sft is None else (Sft(setting),)


def sft_policy(setting: Setting, at: StageContext) -> Policy:
    """The SFT policy, loaded once."""
    made = sft(setting)
    return setting.kept_policy(at.folder(made[0])) if made else setting.base
