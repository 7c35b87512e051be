"""What a method is given, on a model of a few thousand parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from farm.experiments.asker import FeedbackAsker
from farm.feedback.kind import kind
from farm.roles.protocols import Learning, Samples
from farm.tables.records import annotation_table
from reference_methods.parts.anchored import Anchored
from reference_methods.parts.games.feedback import RewardPreference
from tests.policies.conftest import PROMPTS, make_policy


def pair_table(policy: Any, pairs: int) -> pd.DataFrame:
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(pairs)]
    samples = policy.sample([p for p in prompts for _ in (0, 1)], seed=0, purpose="pairs")
    table = pd.DataFrame({"instruction": prompts})
    for side in (1, 2):
        part: Samples = samples.select(range(side - 1, 2 * pairs, 2))
        frame = part.frame("t").drop(columns=["instruction", "generator", "prompt_tokens"])
        table = table.join(frame.add_suffix(f"_{side}"))
    table["prompt_tokens"] = [list(t) for t in samples.select(range(0, 2 * pairs, 2)).prompt_tokens]
    table["preference"] = np.where(table["output_1"].str.len() >= table["output_2"].str.len(), 1.0, 2.0)
    return table


class LikesLength:
    """An annotator that prefers the longer text."""

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        longer = (pairs["output_1"].str.len() - pairs["output_2"].str.len()).to_numpy()
        preference = np.select([longer > 0, longer < 0], [1.0, 2.0], 1.5)
        return annotation_table(pairs, "length", preference, 2 - preference, seed=seed)


def everything(policy: Any = None, **given: Any) -> Learning:
    """Demonstrations, preferences, an annotator, and a reward model that has an opinion, all from ``policy``."""
    policy = policy or make_policy()
    samples = policy.sample(PROMPTS * 4, seed=9, purpose="demonstrations")
    reward_model = policy.scorer(2)
    reward_model.calibrate(0.0, 0.2)
    anchored = Anchored(RewardPreference(reward_model), policy, seed=4)
    return Learning(
        **{
            "seed": 3,
            "policy": policy,
            "prompts": pd.DataFrame({"instruction": PROMPTS}),
            "demonstrations": pd.DataFrame({"instruction": samples.prompts, "output": samples.outputs}),
            "feedback": {"pairs": pair_table(policy, 24)},
            "models": {"reward_model": reward_model, "anchored": anchored},
            "asked": {"pairs": FeedbackAsker(kind("pairs"), LikesLength(), 3)},
            **given,
        }
    )


def numbers(learned: Any) -> torch.Tensor:
    """Every trained parameter, one after the other."""
    return torch.cat([p.detach().double().reshape(-1) for p in learned.parameters()])
