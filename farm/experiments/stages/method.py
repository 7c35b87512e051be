"""The training of one of the methods that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.learning import Needed, learning
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext, Texts


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
        return Size(like=like, texts=self._texts(spec), asks_while_learning=bool(self.asks) or talks)

    def make(self, at: StageContext) -> Facts | None:
        method = self.setting.method(self.method)
        return making.learn(self.method, method, learning(self.setting, method, at), at.place)

    def _texts(self, spec: dict[str, Any]) -> Texts | None:
        """Read from settings that say how much a method does: ``steps`` and ``rollouts`` of those that sample while
        they learn, ``epochs`` of others, ``n`` of best-of-n; None where it has none of these."""
        sizes, epochs, best = self.setting.experiment.sizes, making.epochs(spec), spec.get("n")
        if isinstance(steps := spec.get("steps"), int) and isinstance(rollouts := spec.get("rollouts"), int):
            n = steps * rollouts  # each is written, read by the reward model and the reference, and learned from
            return Texts(epochs * n, 2 * n, n)
        if "epochs" in spec and "pairs" in self.needs:
            n = 2 * self.setting.sources.rows("pairs")  # both sides, and the reference's log-probabilities once
            return Texts(epochs * n, n)
        if isinstance(best, int) and "epochs" in spec:  # expert iteration: the best of n, then SFT on it
            drawn = sizes.prompts * best
            return Texts(epochs * sizes.prompts, drawn, drawn)
        return Texts() if isinstance(best, int) else None  # best-of-n trains nothing
