"""A reward model for each group of users, whose groups nobody has told: a mixture fitted by hard EM.

    1. each response becomes a vector: its action in a table, or the mean hidden state of the SFT policy (frozen)
    2. EM on the differences of these vectors finds the groups of the users (parts/mixture.py)
    3. each group's reward is a reward model of its own, fitted to the pairs of its users and standardised

Each reward has mean 0 and standard deviation 1 on samples of the SFT policy, without which the worst group would depend
on the scale of its reward. The score of the mixture is the mean over the pairs of all, what one reward for everyone
should be; :mod:`~reference_methods.online.max_min` learns from the single ones. With one group this is `reward_model`.

Paper: MaxMin-RLHF (Chakraborty et al., arXiv 2402.08925); no number of groups, restarts or learning rate is given for
language models. Defaults: two groups, 8 starts; the settings of ``reward_model``. Deviation: the assignments are found
on frozen vectors, and each group's model is fitted once, where the paper fits the models anew in every round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from farm.base.bounds import Count, Positive
from farm.base.errors import UserError, nearest
from farm.roles.protocols import Learning, Scorer
from reference_methods.models.reward_model import RewardModel
from reference_methods.models.weighted_model import WeightedScorer
from reference_methods.parts import mixture
from reference_methods.parts.batches import tokens_at_once
from reference_methods.parts.checkpoints import following, log_once
from reference_methods.parts.embedding import embedded
from reference_methods.parts.preferences import Preferences


@dataclass(frozen=True, kw_only=True)
class MixtureRewardModel(RewardModel):
    """Fits one reward model a group to ``preferences``."""

    groups: Count = 2
    """Z"""
    restarts: Count = 8
    """of EM, of which the likeliest end is taken"""
    user: str = "annotator"
    """the column that says whose label a pair has"""
    ridge: Positive = 1.0
    """of the regressions in EM"""

    def train(self, learning: Learning) -> Scorer:
        table = learning.feedback["pairs"]
        if self.user not in table.columns:
            known = nearest(self.user, table.columns)
            raise UserError(f"mixture_reward_model: the pairs have no column `{self.user}`; {known}")
        of_pair, found = self.assigned(learning)
        count = np.bincount(of_pair, minlength=self.groups)
        if not count.all():
            raise UserError(f"mixture_reward_model: only {np.count_nonzero(count)} groups have users; set `groups` so")
        scorers, line = list[Scorer](), 0
        for z in range(self.groups):
            own = {**learning.feedback, "pairs": table[of_pair == z].reset_index(drop=True)}
            scorer, line = self._of_group(z, replace(learning, feedback=own), line)
            scorers.append(scorer)
        shares = count / count.sum()
        log_once(
            learning.log, {"step": line, "log_likelihood": found.log_likelihood, "smallest_share": float(shares.min())}
        )
        return MixtureScorer(scorers, shares.tolist())

    def _of_group(self, z: int, learning: Learning, line: int) -> tuple[Scorer, int]:
        """The reward model of a group's pairs, whose lines of the log begin with this number, and the next number."""
        after, own = line, following(learning, line)

        def log(metrics: dict[str, float]) -> None:
            nonlocal after
            after = line + int(metrics["step"]) + 1
            own.log({**metrics, "group": z})

        place = learning.checkpoints and learning.checkpoints / f"group {z}"
        return super().train(replace(own, log=log, checkpoints=place)), after

    def assigned(self, learning: Learning) -> tuple[NDArray[np.int64], mixture.Mixture]:
        """The group of each pair's user, [n], and what EM found."""
        pairs = Preferences.read(learning, self.context)
        _, user = np.unique(learning.feedback["pairs"][self.user].astype(str), return_inverse=True)
        tokens = tokens_at_once(self.micro_batch_tokens, learning.policy, training=False)
        x = embedded(learning.policy, pairs.first, tokens) - embedded(learning.policy, pairs.second, tokens)
        x = x / max(float(x.std()), 1e-12)
        p_first = pairs.p_first.astype(np.float64)
        of = {"restarts": self.restarts, "seed": learning.seed}
        found = mixture.fit(x, p_first, user.astype(np.int64), self.groups, ridge=self.ridge, **of)
        return found.group[user], found


class MixtureScorer(WeightedScorer):
    """Reward models of groups of users, weighted by the shares of the groups."""

    @property
    def scorers(self) -> list[Scorer]:
        """One a group."""
        return self.parts

    def calibrate(self, mean: float, scale: float) -> None:
        """From now on each group returns (score - mean) / scale, and so does their mean."""
        for scorer in self.parts:
            scorer.calibrate(mean, scale)

    def copy(self, zero_head: bool = False) -> MixtureScorer:
        return MixtureScorer([scorer.copy(zero_head) for scorer in self.parts], self.weights)
