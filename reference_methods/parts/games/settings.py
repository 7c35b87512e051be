"""The settings of every game method, and what each says of itself: its loss, its opponent, its step in the table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from farm.base.bounds import Count, Natural, NotNegative, Several, Share
from farm.roles.protocols import Method, Policy
from reference_methods.parts.games.losses import Play
from reference_methods.parts.games.opponents import Live, Opponent
from reference_methods.parts.training import OnPolicy


@dataclass(frozen=True, kw_only=True)
class GameSettings(OnPolicy):
    """Settings of every game method. Methods inherit them, give their own defaults, and say what they minimise."""

    plays_regularised: ClassVar[bool] = True
    """whether the method seeks the equilibrium of the game with the KL; else that of the plain game"""
    table_update: ClassVar[Literal["natural gradient", "argmin"]] = "natural gradient"
    """what an exact update in the table is: a natural-gradient step on the loss, or its minimiser"""
    is_extragradient: ClassVar[bool] = False
    table_step: ClassVar[float] = 2.0
    """the step size of the table where none is given"""
    learns_from_pairs: ClassVar[bool] = False
    """whether the loss takes ``Play.preferences``, verdicts on pairs, instead of win rates"""
    uses_scores: ClassVar[bool] = False
    """whether ``Play.wins`` holds scores, log-odds of a preference model, instead of probabilities"""
    reference_samples: ClassVar[bool] = False
    """whether half of each group are samples of the reference"""

    beta: NotNegative = 0.1
    """strength of the KL to the SFT policy"""
    steps: Natural = 40
    prompts_per_step: Count = 48
    samples_per_prompt: Several = 4
    duels: Count = 1
    """queries for each response, a step"""
    soft_labels: bool = False
    """whether to learn from the annotator's own probability, where it gives one, instead of its verdict"""
    preference_model: Method | None = None
    """what gives the preference model that then decides the duels, not the annotator: a method that fits one to the
    annotated pairs, ``shared_preference`` for the experiment's own, or ``reward_preference``"""
    cut_responses_lose: bool = False
    """whether a response that did not end by itself loses its duels with those that did, without being asked for"""
    gap_every: Natural = 0
    """steps between two measurements of the gap to the best answer (``games.gap``), on the annotator; 0 for none"""
    gap_prompts: Count = 32
    """prompts of one such measurement"""
    warm_up: Share = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference_samples and self.samples_per_prompt % 2:
            raise ValueError("samples_per_prompt must be even: half of them come from the reference")
        if self.duels >= self.samples_per_prompt:
            raise ValueError(f"duels must be fewer than samples_per_prompt ({self.samples_per_prompt})")
        if self.cut_responses_lose and self.uses_scores:
            raise ValueError("cut_responses_lose is for verdicts; this method trains on scores")
        if self.prompts_per_step % self.minibatches:
            raise ValueError("prompts_per_step must be a multiple of minibatches")

    # --- what a method says -------------------------------------------------------------------------------------------

    def loss(self, log_probabilities: Tensor, play: Play) -> Tensor:
        """The loss of each prompt from log pi(y_i) of its responses: [S, n] -> [S]."""
        raise NotImplementedError

    def opponent(self, learner: Policy, reference: Policy) -> Opponent:  # noqa: ARG002 (others need the reference)
        """Whom the learner plays against; itself unless a method says otherwise."""
        return Live(learner)

    @property
    def gradient_unit(self) -> float:
        """The natural gradient of the loss is this times one in the unit of a preference (the table's step size)."""
        return 1.0

    def in_table(self, step_size: float | None, iteration: int) -> tuple[GameSettings, float]:  # noqa: ARG002
        """The method as it plays in the table, and the size of its step, in units of a preference."""
        if hasattr(self, "step_size"):
            size = self.step_size if step_size is None else step_size
            return (self if size == self.step_size else replace(self, step_size=size)), size  # type: ignore[call-arg]
        most = 1 / self.beta if self.beta else math.inf  # beyond it a step would overshoot the reference
        return self, min(self.table_step, most) if step_size is None else step_size

    @property
    def one_pass(self) -> bool:
        """Whether a step is one update on its whole batch: before it, the learner is the policy that sampled."""
        return self.epochs * self.minibatches == 1

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.preference_model is None else self.preference_model.needs

    @property
    def asks(self) -> frozenset[str]:
        """The kinds of feedback that it asks for while it learns."""
        return frozenset({"pairs"} if self.preference_model is None or self.gap_every else ())

    def facts(self) -> dict[str, Any]:
        model: Any = self.preference_model
        fitted = model.facts() if hasattr(model, "facts") else type(model).__name__
        return {**super().facts(), "preference_model": fitted}
