"""What a method or a model is given to learn from: only what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.asking.kept import in_stage
from farm.asking.replies import kept
from farm.experiments.asker import FeedbackAsker
from farm.experiments.setting import Setting
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import Stage, StageContext
from farm.feedback.kind import kinds
from farm.roles.protocols import Learning, Method, asks


@dataclass(frozen=True)
class Needed:
    """The stages that make what a method or a model needs, besides the SFT policy."""

    feedback: dict[str, Stage]
    models: dict[str, Stage]
    responses: Stage | None

    @classmethod
    def of(cls, setting: Setting, needs: frozenset[str]) -> Needed:
        from farm.experiments.stages.feedback import FeedbackStage
        from farm.experiments.stages.model import ModelStage  # whose models learn by this file in turn
        from farm.experiments.stages.responses import ResponsesStage

        return cls(
            {kind: FeedbackStage(setting, kind) for kind in sorted(needs & set(kinds()))},
            {name: ModelStage(setting, name) for name in sorted(needs & set(setting.models))},
            ResponsesStage(setting) if "responses" in needs else None,
        )

    @property
    def stages(self) -> Sequence[Stage]:
        return (*([] if self.responses is None else [self.responses]), *self.feedback.values(), *self.models.values())


def learning(setting: Setting, method: Method, at: StageContext) -> Learning:
    """What ``method`` needs, from the folders of the stages."""
    needs, sizes, made = method.needs, setting.experiment.sizes, sft(setting)
    train = setting.world.instructions("train")
    # Unlabelled prompts come from behind the labelled ones, as far as there are others.
    rows = (np.arange(sizes.prompts) + setting.sources.labelled_prompts) % len(train)
    needed = Needed.of(setting, needs)
    policy = setting.policy(at.folder(made[0])) if made else setting.base
    models = {name: setting.model(at.folder(stage)) for name, stage in needed.models.items()}
    for model in models.values():
        _hold_frozen_once(policy, model)
    return Learning(
        seed=setting.seed,
        policy=policy,
        prompts=train.iloc[rows].reset_index(drop=True),
        feedback={kind: answered(at.folder(stage), kind) for kind, stage in needed.feedback.items()},
        models=models,
        asked={kind: _asker(setting, kind, at) for kind in sorted(asks(method))},
        demonstrations=setting.world.demonstrations(sizes.demonstrations) if "demonstrations" in needs else None,
        responses=needed.responses and pd.read_parquet(at.folder(needed.responses) / "responses.parquet"),
        user=kept(setting.user(), at.place.checkpoints / "replies") if "user" in needs else None,
        gold=setting.gold,
    )


def _asker(setting: Setting, kind: str, at: StageContext) -> FeedbackAsker:
    giver = setting.giver(kind)
    store = in_stage(giver, at.place.checkpoints)
    return FeedbackAsker(kinds()[kind], giver, setting.seed, setting.further("train"), store)


def _hold_frozen_once(policy: Any, model: Any) -> None:
    """Of a model that was made from the policy the layers that did not train become the policy's own again, so that a
    step computes them once (:mod:`farm.policies.trunk`)."""
    while not hasattr(model, "body") and hasattr(model, "scorer"):
        model = model.scorer
    ours, theirs = getattr(policy, "body", None), getattr(model, "body", None)
    if None not in (getattr(ours, "train_layers", None), getattr(theirs, "train_layers", None)):
        theirs.share_frozen(ours)  # type: ignore[union-attr]


def answered(folder: Path, kind: str) -> pd.DataFrame:
    """The rows of a feedback stage that have an answer."""
    table = pd.read_parquet(folder / f"{kind}.parquet")
    return table[table["status"] == "ok"].reset_index(drop=True)
