"""The training of one of the methods that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.learning import Needed, learning
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.work import SaysItsWork, Texts


@dataclass(frozen=True)
class MethodStage:
    """``model``, the learned policy, and ``metrics.jsonl``."""

    setting: Setting
    method: str
    kind: ClassVar[str] = "method"
    trains: ClassVar[bool] = True

    def label(self) -> str:
        return self.method

    @property
    def needs(self) -> frozenset[str]:
        return self.setting.needs[self.method]

    @property
    def asks(self) -> frozenset[str]:
        return self.setting.asks[self.method]

    def reads(self) -> Sequence[Stage]:
        return (*sft(self.setting), *Needed.of(self.setting, self.needs).stages)

    def describe(self) -> dict[str, Any]:
        s, described, given = self.setting, self.setting.description, self.setting.sources.given_of_prompts
        shown = given is not None and given.names and (self.asks or "user" in self.needs)
        return {
            **s.start,
            "method": described["methods"][self.method],
            "asks": {kind: described["feedback"][kind] for kind in sorted(self.asks)},
            "user": described["user"] if "user" in self.needs else None,
            "shown": s.sources.digest("responses") if shown else None,
            "prompts": [s.experiment.sizes.prompts, s.sources.labelled_prompts],
            "seed": s.seed,
        }

    def size(self) -> Size:
        spec = self.setting.description["methods"][self.method]
        like = [spec, self.setting.experiment.sizes.model_dump()]
        talks = "user" in self.needs and not self.setting.user_is_free
        return Size(like=like, texts=self._texts(), asks_while_learning=bool(self.asks) or talks)

    def make(self, at: StageContext) -> Facts | None:
        method = self.setting.method(self.method)
        return making.learn(self.method, method, learning(self.setting, method, at), at.place)

    def _texts(self) -> Texts | None:
        """As the method says; None where it does not."""
        method, s = self.setting.method(self.method), self.setting
        pairs = s.sources.rows("pairs") if "pairs" in self.needs else 0
        return method.work(s.experiment.sizes.prompts, pairs) if isinstance(method, SaysItsWork) else None
