"""A policy's answers to the held-out instructions, with gold utility, proxy reward and KL to the SFT policy.

All methods answer with the same random draws, so that their differences are not drowned in sampling noise; the baseline
has draws of its own, and SFT among the methods is thus an honest second sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from farm.experiments import making
from farm.experiments.setting import SFT, Setting
from farm.experiments.stages.method import MethodStage
from farm.experiments.stages.model import ModelStage
from farm.experiments.stages.sft import Sft, sft, sft_policy
from farm.experiments.stages.stage import Facts, Size, Stage, StageContext
from farm.roles.protocols import Policy, Samples
from farm.roles.work import Texts
from farm.tables.turns import prompts_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Answers:
    """``outputs.parquet``: one row an answer, with the further columns of its instruction; those of SFT have the
    baseline's beside them."""

    setting: Setting
    of: str
    """a method, or SFT"""
    kind: ClassVar[str] = "answers"
    trains: ClassVar[bool] = False

    @property
    def method(self) -> str | None:
        return None if self.of == SFT else self.of

    def label(self) -> str:
        return f"{self.of} answers"

    def writer(self) -> Sft | MethodStage | None:
        """The stage that made the policy; None of the base policy."""
        if self.method is not None:
            return MethodStage(self.setting, self.method)
        return next(iter(sft(self.setting)), None)

    def proxy(self) -> ModelStage | None:
        """The reward model by which all answers are scored beside the truth: of the models that methods need the first
        that is called ``reward_model``, or else the first; none is fitted for that alone."""
        names = [name for name in self.setting.models_needed if name != "preference_model"]
        return ModelStage(self.setting, names[0]) if names else None

    def reads(self) -> Sequence[Stage]:
        stages = (self.writer(), *sft(self.setting), self.proxy())
        return tuple(dict.fromkeys(stage for stage in stages if stage is not None))

    def describe(self) -> dict[str, Any]:
        e = self.setting.experiment
        asked = {"n": e.sizes.evaluation, "samples": e.sizes.samples, "split": e.split, "t": e.answer_temperature}
        return {**self.setting.start, "asked": asked, "seed": e.seed}

    def size(self) -> Size:
        sizes, spec = self.setting.experiment.sizes, self.setting.description["methods"].get(self.of)
        n = sizes.evaluation * sizes.samples
        choices = int(spec.get("n") or 1) if spec and "epochs" not in spec else 1  # best-of-n chooses when it answers
        return Size(n, like=spec, texts=Texts(0.0, n * (choices + 2), n * choices * (2 if self.of == SFT else 1)))

    def make(self, at: StageContext) -> Facts | None:
        s, e, file = self.setting, self.setting.experiment, at.place.progress
        held_out = prompts_of(s.world.instructions(e.split, e.sizes.evaluation))
        prompts = [prompt for prompt in held_out for _ in range(e.sizes.samples)]
        writer, proxy, start, t = self.writer(), self.proxy(), sft_policy(s, at), e.answer_temperature
        policy = start if self.method is None or writer is None else s.policy(at.folder(writer))
        samples = making.sample(s, policy, prompts, "answers", t, f"answers of {self.of}", file)
        table = samples.frame(self.of).drop(columns=["prompt_tokens", "response_tokens", "log_probabilities"])
        table.insert(0, "method", self.of)
        table["sample"] = np.arange(len(table)) % e.sizes.samples
        table["tokens"] = samples.lengths()
        table["gold"] = s.gold(samples) if s.gold else np.nan
        table["proxy"] = np.nan if proxy is None else making.scores(s.model(at.folder(proxy)), samples)
        table["kl"] = 0.0 if writer is None else _kl(policy, start, samples, t)
        if self.of == SFT:
            shown = "answers of the baseline"
            table["baseline"] = making.sample(s, policy, prompts, "baseline", t, shown).outputs
        table = s.further(e.split).onto(table)
        table.to_parquet(at.place.folder / "outputs.parquet", index=False)
        return None


def _kl(policy: Policy, reference: Policy, samples: Samples, temperature: float) -> NDArray[np.float64]:
    """log policy(y|x) - log reference(y|x) of the policy's own answers, [n]; its mean estimates KL(policy, reference).

    Both at the temperature of the answers, or it would estimate nothing; greedy answers have none (NaN). A policy that
    selects among samples (best-of-n) has no such density, but knows a bound: ``kl_bound``.
    """
    bound = getattr(policy, "kl_bound", None)
    if bound is not None or temperature == 0:
        return np.full(len(samples), np.nan if bound is None else float(bound))

    def log_ratio(part: Samples) -> torch.Tensor:
        ours, theirs = (writer.log_probabilities(part, temperature)[0] for writer in (policy, reference))
        return (ours - theirs).sum(1)

    return making.in_batches(log_ratio, samples)
