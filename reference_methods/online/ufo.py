"""UFO, "try again": PPO over dialogues with a user who says only that an answer was wrong.

    episode      prompt, answer, "try again", answer, ... until the answer is right or after ``max_turn`` turns
    return       R = sum over turns t of decay^t r_t - repetition (1 - E / N),   paid at the last turn
                 r_t the user's reward (1 for the right answer), E of the N answers of the episode are distinct
    advantages   GAE over the tokens of all turns of an episode, with -beta (log pi - log pi_ref) at every token
    losses       PPO's, with the ratio clipped at 1 - clip and 1 + clip_high

Only the ``kept_share`` of the prompts whose episodes' returns vary most is learnt from. An answer that the user calls
invalid (a column ``valid``) is none of N, and the turns after it count as if it had not been. With ``max_turn`` 1 this
is PPO with the user's reward for its score.

Paper: "A Simple 'Try Again' Can Elicit Multi-Turn LLM Reasoning" (arXiv 2507.14295; its code for what it leaves open):
decay 1/2, repetition 1/2, 5 turns, 8 prompts with 16 episodes each, the upper quarter of prompts, gamma = lambda = 1,
clip .2 and .28, KL .001, 200 steps. Answers are compared in lower case and without spaces.
Deviations: no entropy bonus (.001 there); the KL is in the reward, as in ``ppo``; an invalid answer costs nothing here
(.1 there); a response that was cut is left to the user to judge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base.arrays import Floats
from farm.base.bounds import Count, Natural, NotNegative, PositiveShare, Share
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples
from farm.roles.work import Texts
from reference_methods.online.ppo import PPO, Targets
from reference_methods.parts.advantages import explained_variance, generalised_advantage, whiten
from reference_methods.parts.episodes import Turns, episodes_of, last_turns
from reference_methods.parts.online import RATIO_IS_ONE, OnlineTrainer
from reference_methods.parts.optimization import Metrics
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class UFO(PPO):
    """Trains the policy on its dialogues with the user."""

    purpose: ClassVar[str] = "ufo"
    unused_settings: ClassVar[dict[str, str]] = {"missing_eos_reward": "the user judges responses that were cut"}

    max_turn: Count = 5
    decay: Share = 0.5
    """what a reward one turn later is worth"""
    repetition: NotNegative = 0.5
    """what an episode of nothing but repetitions would cost"""
    kept_share: PositiveShare = 0.25
    """of the prompts, those whose returns vary most; 1 keeps all"""
    rollouts: Count = 128
    """episodes of one batch"""
    samples_per_prompt: Count = 16
    steps: Natural = 200
    beta: NotNegative = 0.001
    clip_high: NotNegative | None = 0.28
    lam: Share = 1.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"user"})

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        """At most: every episode has all its turns; of the prompts that are kept each is read by the reference and the
        critic, and learned from by both networks."""
        n = self.max_turn * self.steps * self.rollouts
        return Texts(2 * self.epochs * self.kept_share * n, 2 * self.kept_share * n, n)

    def train(self, learning: Learning) -> Policy:
        policy, critic, user = self.start(learning), self.start_critic(learning), learning.user
        if user is None:
            raise UserError("ufo needs a user to talk to: set `user`, for example try_again")
        networks, n = [(policy, self.learning_rate), (critic, self.value_learning_rate)], self.samples_per_prompt
        with OnlineTrainer(self, learning, self.purpose, networks, at_start=RATIO_IS_ONE) as trainer:
            for prompts in trainer.prompts(self.rollouts // n):
                started, asked = time.perf_counter(), [prompt for prompt in prompts for _ in range(n)]
                talk = episodes_of(
                    policy,
                    user,
                    asked,
                    self.max_turn,
                    seed=learning.seed,
                    purpose=trainer.key(),
                    temperature=self.temperature,
                    max_new_tokens=self.max_new_tokens,
                )
                returns = self.returns(talk)
                trainer.log(**summary(talk, returns))
                kept = talk[self.kept(returns)[talk["row"].to_numpy(np.int64)]]
                row = kept["row"].to_numpy(np.uint64)
                scores = np.where(last_turns(row), returns[row.astype(np.int64)], 0.0)
                samples = Samples.from_frame(kept)
                rollout = trainer.scored(policy, samples, torch.from_numpy(scores), started)
                old_values = trainer.compute(critic.values, samples)
                targets = self.over_turns(rollout, old_values, Turns(row, rollout.mask))
                trainer.log(explained_variance=explained_variance(old_values, targets.returns, rollout.mask))
                for batch in trainer.minibatches(samples):
                    trainer.update(batch, partial(self.loss, policy, critic, rollout, targets))
        return policy

    def returns(self, talk: pd.DataFrame) -> Floats:
        """R of each episode, in the order of ``row``, [E]."""
        valid = talk["valid"].to_numpy(bool) if "valid" in talk else np.ones(len(talk), dtype=bool)
        row = talk["row"].to_numpy(np.int64)
        answers = talk["output"].str.lower().str.split().str.join("")
        first = valid & ~pd.DataFrame({"row": row, "valid": valid, "answer": answers}).duplicated().to_numpy()
        before = pd.Series(valid.astype(int)).groupby(row).cumsum().to_numpy() - valid
        rewards = np.bincount(row, self.decay**before * talk["reward"].to_numpy(np.float64))
        given, distinct = np.bincount(row, valid), np.bincount(row, first)
        return rewards - self.repetition * (1 - distinct / np.maximum(given, 1)) * (given > 0)

    def kept(self, returns: Floats) -> NDArray[np.bool_]:
        """Whether an episode's prompt is among those whose returns vary most, [E]."""
        spread = returns.reshape(-1, self.samples_per_prompt).std(1)
        most = np.argsort(-spread, kind="stable")[: max(1, round(self.kept_share * len(spread)))]
        return np.repeat(np.isin(np.arange(len(spread)), most), self.samples_per_prompt)

    def over_turns(self, rollout: Rollout, old_values: Tensor, turns: Turns) -> Targets:
        """PPO's targets, with the return carried over the turns of each episode."""
        rewards = turns.together(rollout.token_rewards(self.beta))
        found = generalised_advantage(rewards, turns.together(old_values), turns.mask, self.gamma, self.lam)
        advantages, returns = (turns.apart(values) for values in found)
        return Targets(whiten(advantages, rollout.mask) * rollout.token_weights(), returns, old_values)


def summary(talk: pd.DataFrame, returns: Floats) -> Metrics:
    """What is logged of a batch of episodes."""
    episodes = talk.groupby("row")
    return {
        "return": float(returns.mean()),
        "success": float((episodes["reward"].sum() > 0).mean()),
        "turns": float(episodes.size().mean()),
        "distinct": float((episodes["output"].nunique() / episodes.size()).mean()),
    }
