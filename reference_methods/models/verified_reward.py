"""The truth of a table's world as a reward model: the gold utility of each response, with no feedback asked.

For controls and known answers: what a method learns from it is what it would learn from perfect feedback. Its scorer is
a table, so it can be saved, and a value model can begin with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.roles.protocols import Learning, World


@dataclass(frozen=True)
class VerifiedReward:
    """Raises UserError for a policy that is no table, and a world whose truth is not known."""

    world: World | None = None
    """the experiment's"""

    needs: ClassVar[frozenset[str]] = frozenset()

    def train(self, learning: Learning) -> TabularScorer:
        policy, world = learning.policy, self.world
        if world is None or not (world.truth_known and isinstance(policy, TabularPolicy) and policy.rows.length == 1):
            raise UserError("verified_reward is for worlds whose policy is a table and whose truth is known")
        features, prompts = world.features, [prompt for prompt in policy.prompts for _ in policy.responses]
        table = features(prompts, policy.responses * len(policy.prompts))
        gold = sum(weight * table[name].to_numpy(float) for name, weight in features.gold_weights.items())
        scores = torch.as_tensor(gold).to(policy.logits.dtype).view(policy.rows.shape)
        return TabularScorer(**policy.rows.settings(), table=scores)
