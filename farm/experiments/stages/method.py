"""The training of one of the methods that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from farm.base.errors import UserError
from farm.experiments import making
from farm.experiments.setting import Setting
from farm.experiments.stages.annotation import Annotation
from farm.experiments.stages.fitted import MODELS, RewardModel, fitted
from farm.experiments.stages.learning import learning
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

    def models(self) -> dict[str, RewardModel]:
        """Role -> the stage that fits the model which the method needs.

        Raises:
            UserError: if the experiment has none.
        """
        found = {}
        for role in sorted(self.needs & set(MODELS)):
            stage = fitted(self.setting, role)
            if stage is None:
                raise UserError(f"{self.setting.origin}: the method {self.method} needs `{role}`, which is null")
            found[role] = stage
        return found

    def reads(self) -> Sequence[Stage]:
        feedback = (Annotation(self.setting),) if "preferences" in self.needs else ()
        return (*sft(self.setting), *feedback, *self.models().values())

    def describe(self) -> dict[str, Any]:
        e, described = self.setting.experiment, self.setting.description
        return {
            **self.setting.start,
            "method": described["methods"][self.method],
            "annotator": described["annotator"] if "annotator" in self.needs else None,
            "user": described["user"] if "user" in self.needs else None,
            "prompts": e.sizes.prompts,
            "pairs": e.sizes.pairs,
            "seed": e.seed,
        }

    def size(self) -> Size:
        spec = self.setting.description["methods"][self.method]
        like, asks_while_learning = [spec, self.setting.experiment.sizes.model_dump()], "annotator" in self.needs
        return Size(like=like, texts=self._texts(spec), asks_while_learning=asks_while_learning)

    def make(self, at: StageContext) -> Facts | None:
        method = self.setting.method(self.method)
        folders = {role: at.folder(stage) for role, stage in self.models().items()}
        return making.learn(self.method, method, learning(self.setting, method, at, folders), at.place)

    def _texts(self, spec: dict[str, Any]) -> Texts | None:
        """Read from settings that say how much a method does: ``steps`` and ``rollouts`` of those that sample while
        they learn, ``epochs`` of others, ``n`` of best-of-n; None where it has none of these."""
        sizes, epochs, best = self.setting.experiment.sizes, making.epochs(spec), spec.get("n")
        if isinstance(steps := spec.get("steps"), int) and isinstance(rollouts := spec.get("rollouts"), int):
            n = steps * rollouts  # each is written, read by the reward model and the reference, and learned from
            return Texts(epochs * n, 2 * n, n)
        if "epochs" in spec and "preferences" in self.needs:
            n = 2 * sizes.pairs  # both sides, and the reference's log-probabilities once
            return Texts(epochs * n, n)
        if isinstance(best, int) and "epochs" in spec:  # expert iteration: the best of n, then SFT on it
            drawn = sizes.prompts * best
            return Texts(epochs * sizes.prompts, drawn, drawn)
        return Texts() if isinstance(best, int) else None  # best-of-n trains nothing
