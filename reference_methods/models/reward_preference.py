"""The experiment's reward model as a preference model, for methods that let a model decide which sample is better.

    P(y > y' | x) = sigma((r(x, y) - r(x, y')) / temperature)

Nothing is fitted. With it online DPO learns from the reward model instead of the annotator (``online_dpo_reward``), and
its duels cost no query. A temperature near 0 gives hard labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farm.base.bounds import Bounded, Positive
from farm.base.errors import UserError
from farm.roles.protocols import Learning
from reference_methods.parts.games.feedback import RewardPreference


@dataclass(frozen=True, kw_only=True)
class RewardModelPreference(Bounded):
    """Puts the reward model behind the duels."""

    needs: ClassVar[frozenset[str]] = frozenset({"reward_model"})

    temperature: Positive = 1.0
    """of the Bradley-Terry model, in units of the reward"""

    def train(self, learning: Learning) -> RewardPreference:
        if learning.reward_model is None:
            raise UserError(f"{type(self).__name__} needs a reward model: set `reward_model`")
        return RewardPreference(learning.reward_model, self.temperature)
