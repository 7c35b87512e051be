"""Whom a policy plays against: itself, its own past, or a mixture with the reference. An opponent is a sampler.

    live         the policy as it is
    average      exponential moving average of the parameters (Nash-EMA)
    mixture      ~ pi^(1 - share) ref^share (Nash-MD): exact in the table, in the logits of each next token on a model
    half point   where a first step would lead (the extragradient family)

The snapshot of the iteration, pi_t, is the policy at the time of sampling, whose log-probabilities come with the
samples; so no copy of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Policy
from reference_methods.parts.checkpoints import CurrentPolicy
from reference_methods.parts.optimization import is_sharded


class Opponent(Protocol):
    def policy(self) -> Policy:
        """Whom to sample from now."""

    def update(self) -> None:
        """The learner has taken a step."""


class Live:
    """The learner itself: its own other samples are the opponents."""

    def __init__(self, learner: Policy) -> None:
        self.learner = learner

    def policy(self) -> Policy:
        return self.learner

    def update(self) -> None:
        pass


class Average:
    """theta_bar <- (1 - decay) theta + decay theta_bar after every step."""

    def __init__(self, learner: Policy, decay: float) -> None:
        self.learner, self.decay = learner, decay
        self._mean = CurrentPolicy(learner.copy())

    def policy(self) -> Policy:
        return self._mean.policy

    @torch.no_grad()
    def update(self) -> None:
        learner = self.learner.copy() if is_sharded(self.learner) else self.learner  # the copy is whole
        for mean, new in zip(self._mean.policy.parameters(), learner.parameters(), strict=True):
            mean.lerp_(new, 1 - self.decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._mean.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._mean.load_state_dict(state)


class Mixture:
    """The geometric mixture of the learner, weight 1 - share, and the reference, weight share, as they are now."""

    def __init__(self, learner: Policy, reference: Policy, share: float) -> None:
        self.learner, self.reference, self.share = learner, reference, share

    def policy(self) -> Policy:
        if self.share == 0:
            return self.learner
        if self.share == 1:
            return self.reference
        return geometric_mixture(self.learner, self.reference, self.share)

    def update(self) -> None:
        pass


def geometric_mixture(policy: Policy, reference: Policy, share: float) -> Policy:
    """The policy ~ policy^(1 - share) reference^share, of each next token, to sample from."""
    if isinstance(policy, TabularPolicy) and isinstance(reference, TabularPolicy):
        with torch.no_grad():
            logits = (1 - share) * policy.log_table() + share * reference.log_table()
        return TabularPolicy(policy.prompts, policy.responses, logits)
    from farm.policies.language_model import LanguageModelPolicy
    from reference_methods.parts.games.mixture import MixturePolicy

    if isinstance(policy, LanguageModelPolicy) and isinstance(reference, LanguageModelPolicy):
        return MixturePolicy(policy, reference, share)
    raise UserError(f"a {type(policy).__name__} and a {type(reference).__name__} have no next-token logits to mix")


def extragradient(policy: Policy, opponent: Policy, step: Callable[[Policy], object]) -> None:
    """A step of a table from here, against where a first step would have led; ``step`` changes ``policy`` in place."""
    here = [(parameter, parameter.detach().clone()) for parameter in policy.parameters()]
    step(opponent)
    half_point = policy.copy()
    with torch.no_grad():
        for parameter, value in here:
            parameter.copy_(value)
    step(half_point)
