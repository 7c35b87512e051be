"""Which of the experiment's models a method learns from, for methods whose samples a reward model scores."""

from __future__ import annotations

from dataclasses import dataclass

from farm.roles.protocols import Learning, Scorer


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The setting of methods that need a reward model."""

    reward_model: str = "reward_model"
    """the name of the model that scores: the experiment's ``reward_model``, or one of its ``models``"""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.reward_model})

    def scorer(self, learning: Learning) -> Scorer:
        """The model of that name. Raises UserError where there is none."""
        return learning.scorer(self.reward_model)
