"""The reward of Pairwise-RL: how far a preference model puts a response above a fixed response to the same prompt.

    R(x, y) = log-odds of P(y > y_a | x),   y_a: the first response of the SFT policy

Nothing is fitted: ``model`` names the experiment's reward model (then P = sigma(r(y) - r(y_a)), and R is r less a
constant of the prompt) or one that compares two responses (``general_preference_model``,
``generative_preference_model``, ...). Whatever constant of a prompt is in a reward model falls out.

Paper: Pairwise-RL (arXiv 2504.04950): a generative pairwise reward model, both orders averaged, and PPO whose reward is
its preference over a fixed answer to each prompt.
Deviations: the anchor is a sample of the SFT policy, which every prompt has, not a reference answer; the log-odds, not
the probability, which saturates (``probability: true`` is the paper's); the value network reads the prompt alone.

It logs once, on samples of the SFT policy: ``between``, by how much the reward model's mean scores of prompts differ
(standard deviation; none where the model compares), ``anchored_between`` the same of R in log-odds, and ``saturated``,
the share with |P - 1/2| > .45.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from farm.base.bounds import Bounded, Natural, NotNegative
from farm.roles.protocols import Learning, Policy, Scorer
from farm.tables.turns import prompts_of
from reference_methods.parts.anchored import Anchored, spread_between
from reference_methods.parts.batches import in_parts, prompt_stream, sampled, tokens_at_once
from reference_methods.parts.checkpoints import log_once
from reference_methods.parts.games.feedback import RewardPreference

RESPONSES = 4
"""to each prompt that the spread is measured on"""


@dataclass(frozen=True, kw_only=True)
class AnchoredReward(Bounded):
    """Puts a model in the place of a reward model."""

    model: str = "reward_model"
    """the name of the experiment's model that is asked: of rewards or of preferences"""
    temperature: NotNegative = 1.0
    """of the anchors; 0: the likeliest token each time"""
    probability: bool = False
    """whether the reward is the probability in place of its log-odds"""
    prompts: Natural = 64
    """on which the spread is measured; 0: it is not"""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.model})

    def train(self, learning: Learning) -> Anchored:
        asked, policy = learning.models.get(self.model), learning.policy
        model = RewardPreference(asked) if isinstance(asked, Scorer) else learning.preference_model(self.model)
        found = Anchored(model, policy, learning.seed, self.temperature, self.probability)
        if self.prompts and len(learning.prompts):
            log_once(learning.log, {"step": 0, **self._spread(learning, asked, found, policy)})
        return found

    def _spread(self, learning: Learning, asked: object, found: Anchored, policy: Policy) -> dict[str, float]:
        purpose = "anchored_reward/spread"
        known = prompts_of(learning.prompts)
        (drawn,) = prompt_stream(known, min(self.prompts, len(known)), 1, learning.seed, purpose)
        repeated = [prompt for prompt in drawn for _ in range(RESPONSES)]
        samples = sampled(policy, repeated, seed=learning.seed, purpose=purpose)
        part = partial(in_parts, samples=samples, tokens=tokens_at_once("auto", policy, training=False), together=True)
        logits = part(lambda rows: found.model.logits(rows, found.anchors(rows.prompts)))
        metrics = {"saturated": float((torch.sigmoid(logits) - 0.5).abs().gt(0.45).float().mean())}
        if len(drawn) > 1:
            metrics["anchored_between"] = spread_between(logits.view(-1, RESPONSES))
            if isinstance(asked, Scorer):
                metrics["between"] = spread_between(part(asked.scores).view(-1, RESPONSES))
        return metrics
