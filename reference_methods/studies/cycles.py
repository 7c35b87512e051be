"""Preferences that go in circles: can a reward model or a general preference model tell who is preferred?

    circle     of n responses (n odd) each is preferred to the next (n - 1) / 2, with the same log-odds
    ranking    u_0 > u_1 > ... > u_(n - 1): each is preferred to all that follow, with log-odds u_i - u_j

Noisy labels of every pair of every instruction are drawn, and the project's own models are fitted to them on a table:
``reward_model`` (Bradley-Terry), ``general_preference_model`` with one plane and with several. Accuracy is agreement
with who is truly preferred. No ranking of a circle of three puts more than two of its three pairs right; one plane has
all of any circle, with the responses at the angles 2 pi k / n.

Paper: Zhang et al. (arXiv 2410.02197): cyclic preferences are fitted with 100 % accuracy where Bradley-Terry stays at
chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Count, Positive, check
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning, PreferenceModel, Scorer
from reference_methods.models.general_preference_model import GeneralPreferenceModel
from reference_methods.models.reward_model import RewardModel
from reference_methods.parts.games.feedback import RewardPreference
from reference_methods.studies.parts import agrees


@dataclass(frozen=True)
class Cycles:
    """Table ``accuracy``: ``method``, ``instruction``, ``pair`` and ``right`` (1, 0, or 1/2 where a model is even)."""

    circle: bool = True
    """whether preferences go in a circle or rank"""
    responses: int = 5
    """n, odd"""
    instructions: Count = 10
    labels: Count = 20
    """of each pair"""
    log_odds: Positive = 2.0
    """of who is preferred in a circle; in a ranking, of the first to the last"""

    def __post_init__(self) -> None:
        check(self)
        if self.responses < 3 or self.responses % 2 == 0:
            raise ValueError(f"responses must be an odd number from 3 on, not {self.responses}")

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        truth = circle(self.responses, self.log_odds) if self.circle else ranking(self.responses, self.log_odds)
        prompts = [f"request {k}" for k in range(self.instructions)]
        policy = TabularPolicy(prompts, [f"response {k}" for k in range(self.responses)])
        drawn = self.drawn(truth, prompts, seed)
        asked = pd.DataFrame({"instruction": prompts})
        given = Learning(seed=seed, policy=policy, prompts=asked, feedback={"pairs": drawn})
        fit = {"epochs": 80, "batch_size": len(drawn), "learning_rate": 0.2, "held_out_share": 0.0}
        scorer = RewardModel(calibration_samples=0, **fit).train(given)  # type: ignore[arg-type]
        assert isinstance(scorer, Scorer)
        models: dict[str, PreferenceModel] = {"bradley_terry": RewardPreference(scorer)}
        for planes in (1, self.responses // 2):
            method = GeneralPreferenceModel(planes=planes, **fit)  # type: ignore[arg-type]
            models["one_plane" if planes == 1 else "all_planes"] = method.train(given)
        found = [accuracy(model, policy, truth).assign(method=name) for name, model in models.items()]
        return {"accuracy": pd.concat(found, ignore_index=True)}

    def drawn(self, truth: Floats, prompts: list[str], seed: int) -> pd.DataFrame:
        """``labels`` verdicts on each pair of each prompt."""
        rows = []
        for number, prompt in enumerate(prompts):
            draws = rng.generator(seed, "cycles", number)
            for i, j in combinations(range(self.responses), 2):
                wins = draws.binomial(self.labels, 1 / (1 + np.exp(-truth[i, j])))
                row = {"instruction": prompt, "output_1": f"response {i}", "output_2": f"response {j}"}
                rows += [row | {"preference": 1.0}] * wins + [row | {"preference": 2.0}] * (self.labels - wins)
        return pd.DataFrame(rows)


def circle(n: int, log_odds: float) -> Floats:
    """log-odds of i over j, [n, n]: each is preferred to the next (n - 1) / 2."""
    ahead = (np.arange(n)[None] - np.arange(n)[:, None]) % n
    return np.where(ahead == 0, 0.0, np.where(ahead <= n // 2, log_odds, -log_odds))


def ranking(n: int, log_odds: float) -> Floats:
    """log-odds of i over j, [n, n], of utilities that fall from the first to the last by ``log_odds``."""
    utility = np.linspace(log_odds, 0, n)
    return utility[:, None] - utility[None]


def accuracy(model: PreferenceModel, policy: TabularPolicy, truth: Floats) -> pd.DataFrame:
    """Whether the model puts first who is truly preferred, of every pair of every prompt."""
    pairs = list(combinations(range(len(policy.responses)), 2))
    prompts = [prompt for prompt in policy.prompts for _ in pairs]
    first, second = ([policy.responses[pair[side]] for pair in pairs] * len(policy.prompts) for side in (0, 1))
    with torch.no_grad():
        logits = model.logits(policy.encode(prompts, first), policy.encode(prompts, second)).double().numpy()
    wanted = np.tile([truth[i, j] for i, j in pairs], len(policy.prompts))
    names = [f"{i} and {j}" for i, j in pairs] * len(policy.prompts)
    return pd.DataFrame({"instruction": prompts, "pair": names, "right": agrees(logits, wanted)})
