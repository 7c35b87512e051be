"""Is it the order of the pairs, or the reference that moves? Curry-DPO where gold utility and KL are exact.

    policy    a softmax over K responses to one prompt, uniform at first; utilities N(0, spread^2)
    lists     of ``size`` responses each, rated round(4 + u + noise) from 1 to 7
    arms      curry             easy pairs first, the reference moved after each stage
              hard_first        hard pairs first
              multi_pair        all pairs in random order, the first reference;  multi_pair_weak: at beta / 3
              one_pair          best against worst in every stage, the first reference;  one_pair_moved: moved

All arms are trained by the method itself (pairs/curry_dpo.py), on as many steps. After each of them the policy's
expected utility and its KL to the first policy are computed, so that arms are compared at equal KL too.

Paper: Curry-DPO (Pattnaik et al., arXiv 2403.07230). A table in place of a language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, NotNegative, Positive, Several
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning
from reference_methods.pairs.curry_dpo import CurryDPO

ARMS: dict[str, dict[str, Any]] = {
    "curry": {},
    "hard_first": {"order": "hard_first"},
    "multi_pair": {"order": "shuffled", "reference": "sft"},
    "multi_pair_weak": {"order": "shuffled", "reference": "sft"},
    "one_pair": {"order": "same", "reference": "sft"},
    "one_pair_moved": {"order": "same"},
}


@dataclass(frozen=True)
class Curriculum(Bounded):
    """Tables ``path`` (``step``, ``kl`` and ``gold`` after each update of an arm) and ``policies`` (at its end)."""

    responses: Several = 20
    """K"""
    spread: Positive = 1.25
    lists: Count = 700
    size: Several = 4
    noise: NotNegative = 0.7
    """of a rating, in levels"""
    beta: Positive = 1.0
    learning_rate: Positive = 0.2
    epochs: Count = 2
    """of each stage"""
    batch_size: Count = 64

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "curriculum")
        utilities = self.spread * draws.normal(size=self.responses)
        names = [f"response {k}" for k in range(self.responses)]
        said = draws.integers(0, self.responses, (self.lists, self.size)).ravel()
        score = np.clip(np.rint(4 + utilities[said] + self.noise * draws.normal(size=len(said))), 1, 7)
        rated = pd.DataFrame({"instruction": "prompt", "output": [names[k] for k in said], "score": score})
        rated["group"] = np.repeat(np.arange(self.lists), self.size)
        start = TabularPolicy(["prompt"], names, torch.zeros(1, self.responses, dtype=torch.float64))
        given = Learning(seed, start, pd.DataFrame({"instruction": ["prompt"]}), {"ratings": rated})
        paths = [self.path(name, given, utilities) for name in ARMS]
        ends = pd.concat([path.tail(1) for path in paths], ignore_index=True)
        return {"path": pd.concat(paths, ignore_index=True), "policies": ends}

    def path(self, arm: str, given: Learning, utilities: Floats) -> pd.DataFrame:
        """``method, step, kl, gold`` of an arm, from before the first update on."""
        beta = self.beta / 3 if arm == "multi_pair_weak" else self.beta
        settings: dict[str, Any] = {"beta": beta, "learning_rate": self.learning_rate, "epochs": self.epochs}
        method = CurryDPO(**ARMS[arm], **settings, batch_size=self.batch_size)
        policy, rows = given.policy.copy(), list[dict[str, Any]]()

        def see(metrics: dict[str, float] | None = None) -> None:  # noqa: ARG001 (a line of the log)
            assert isinstance(policy, TabularPolicy)
            p = policy.probabilities()[0].detach().numpy()
            kl = float((p * np.log(p * len(p))).sum())
            rows.append({"method": arm, "step": len(rows), "kl": kl, "gold": float(p @ utilities)})

        see()
        for number, pairs in enumerate(method.stages(given)):
            moved = number > 0 and method.reference == "last_stage"
            reference = policy.copy() if moved else given.reference
            method.stage(policy, pairs, reference, Learning(given.seed, policy, given.prompts, log=see), number)
        return pd.DataFrame(rows)
