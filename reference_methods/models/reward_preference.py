"""The experiment's reward model as a preference model, for methods that let a model decide which sample is better.

    P(y > y' | x) = sigma((r(x, y) - r(x, y')) / temperature)

Nothing is fitted. With it online DPO learns from the reward model instead of the annotator (``online_dpo_reward``), and
its duels cost no query. A temperature near 0 gives hard labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.base.bounds import Bounded, Positive
from farm.roles.protocols import Learning
from reference_methods.parts.games.feedback import RewardPreference
from reference_methods.parts.scored import Scored


@dataclass(frozen=True, kw_only=True)
class RewardModelPreference(Scored, Bounded):
    """Puts the reward model behind the duels."""

    temperature: Positive = 1.0
    """of the Bradley-Terry model, in units of the reward"""

    def train(self, learning: Learning) -> RewardPreference:
        return RewardPreference(self.scorer(learning), self.temperature)
