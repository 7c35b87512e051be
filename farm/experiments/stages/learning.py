"""What a method is given to learn from: only what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from farm.experiments.setting import Setting
from farm.experiments.stages.annotation import Annotation, preferences
from farm.experiments.stages.sft import sft
from farm.experiments.stages.stage import StageContext
from farm.roles.protocols import Learning, Method


def learning(setting: Setting, method: Method, at: StageContext, models: Mapping[str, Path]) -> Learning:
    """``models`` are the folders of fitted ones by their role."""
    needs, sizes, made = method.needs, setting.experiment.sizes, sft(setting)
    train = setting.world.instructions("train")
    # Unlabelled prompts come from behind the labelled ones, as far as there are others.
    prompts = train.iloc[(np.arange(sizes.prompts) + sizes.pairs) % len(train)].reset_index(drop=True)
    reward, preferring = models.get("reward_model"), models.get("preference_model")
    return Learning(
        seed=setting.seed,
        policy=setting.policy(at.folder(made[0])) if made else setting.base,
        prompts=prompts,
        preferences=preferences(at.folder(Annotation(setting))) if "preferences" in needs else None,
        demonstrations=setting.world.demonstrations(sizes.demonstrations) if "demonstrations" in needs else None,
        annotator=setting.annotator("annotator") if "annotator" in needs else None,
        reward_model=None if reward is None else setting.scorer(reward),
        preference_model=None if preferring is None else setting.preference_model(preferring),
        user=setting.user() if "user" in needs else None,
        gold=setting.gold,
    )
