"""How far a policy is from an equilibrium while it learns: the gap to the best answer among fresh samples.

At a probe the policy writes new responses to some prompts; they and a few of the reference's all meet. What the best of
them wins over the policy gives the duality gap of the game without KL (``farm.statistics.best_response``). It is a
lower bound, as good as the answers at hand, measured on the annotator and never learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.roles.protocols import Learning, Policy, Samples
from farm.statistics.best_response import best_response, gap
from farm.tables.turns import Prompt
from reference_methods.parts.games.feedback import AskedFeedback


@dataclass
class GapProbe:
    """Measures one policy after the other on the same prompts against the same responses of the reference."""

    learning: Learning
    prompts: list[Prompt]
    samples: int = 8
    """responses to each prompt, of the policy and of the reference"""
    temperature: float = 1.0
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        self.feedback = AskedFeedback(self.learning, "gap", soft=True)
        self._theirs = self._write(self.learning.reference, "gap/reference")

    def __call__(self, policy: Policy, step: int) -> float:
        """The gap, 0 to 1, the mean over the prompts whose duels were decided; NaN if none was."""
        answers = Samples.concatenate([self._write(policy, f"gap/step {step}"), self._theirs])
        prompts, n = len(self.prompts), self.samples
        place = np.arange(2 * prompts * n).reshape(2, prompts, n).transpose(1, 0, 2).reshape(prompts, 2 * n)
        first, second = np.triu_indices(2 * n, 1)
        verdicts = self.feedback(answers.select(place[:, first].ravel()), answers.select(place[:, second].ravel()))
        verdicts = verdicts.reshape(prompts, len(first))
        wins = np.full((prompts, 2 * n, 2 * n), 0.5)
        wins[:, first, second], wins[:, second, first] = verdicts, 1 - verdicts
        best = best_response(wins, np.arange(n))
        return float(gap(float(np.nanmean(best)))) if np.isfinite(best).any() else float("nan")

    def _write(self, policy: Policy, purpose: str) -> Samples:
        return policy.sample(
            [prompt for prompt in self.prompts for _ in range(self.samples)],
            seed=self.learning.seed,
            purpose=purpose,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )
