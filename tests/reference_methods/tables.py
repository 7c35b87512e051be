"""Small worlds with known answers: a table of responses, and populations of pairs written out in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from farm.policies.tabular import TabularPolicy, TabularScorer
from farm.roles.protocols import Learning, Policy, Samples
from reference_methods.parts.online import Online, OnlineTrainer
from reference_methods.parts.rollouts import Rollout

Array = NDArray[np.float64]

REFERENCE = np.array([0.5, 0.3, 0.2])
"""the reference policy of most tests"""


def policy_of(probabilities: Any, prompts: int = 1) -> TabularPolicy:
    table = torch.as_tensor(np.asarray(probabilities, dtype=np.float64))
    responses = [f"response {i}" for i in range(table.shape[-1])]
    return TabularPolicy.from_probabilities([f"prompt {i}" for i in range(prompts)], responses, table)


def scorer_of(rewards: Any, prompts: int = 1) -> TabularScorer:
    table = torch.as_tensor(np.asarray(rewards, dtype=np.float64)).expand(prompts, -1)
    responses = [f"response {i}" for i in range(table.shape[-1])]
    return TabularScorer([f"prompt {i}" for i in range(prompts)], responses, table)


def learning(policy: Policy, *, seed: int = 1, prompts: int = 1, **given: Any) -> Learning:
    table = pd.DataFrame({"instruction": [f"prompt {i}" for i in range(prompts)]})
    return Learning(seed=seed, policy=policy, prompts=table, **given)


def all_pairs(p_first: Array, copies: Array | None = None, prompt: str = "prompt 0") -> pd.DataFrame:
    """Every ordered pair of responses with its exact probability as a soft label; ``copies[i, j]`` rows of each."""
    k = len(p_first)
    rows = []
    for i in range(k):
        for j in range(k):
            repeat = (i != j) if copies is None else int(copies[i, j])
            rows += [(prompt, f"response {i}", f"response {j}", 2 - p_first[i, j])] * repeat
    return pd.DataFrame(rows, columns=["instruction", "output_1", "output_2", "preference"])


def bradley_terry(utilities: Array, flip: float = 0.0) -> Array:
    p = 1 / (1 + np.exp(-(utilities[:, None] - utilities[None])))
    return (1 - 2 * flip) * p + flip


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def tilt(reference: Array, rewards: Array, beta: float) -> Array:
    """reference exp(rewards / beta) / Z: the optimum of E rewards - beta KL."""
    return softmax(np.log(reference) + rewards / beta)


def best_of(reference: Array, rewards: Array, n: int) -> Array:
    """F(y)^n - F(y-)^n for distinct rewards."""
    order = np.argsort(rewards)
    cumulative = np.cumsum(reference[order])
    out = np.empty_like(reference)
    out[order] = cumulative**n - np.r_[0, cumulative[:-1]] ** n
    return out


def distance(first: Array, second: Array) -> float:
    """Total variation."""
    return 0.5 * float(np.abs(first - second).sum())


def learned(policy: Any, row: int = 0) -> Array:
    return policy.probabilities()[row].detach().numpy().astype(np.float64)


def recorder() -> tuple[list[dict[str, float]], Callable[[dict[str, float]], None]]:
    found: list[dict[str, float]] = []
    return found, found.append


def frequencies(samples: Samples, k: int) -> Array:
    return np.bincount([int(t[0]) for t in samples.response_tokens], minlength=k) / len(samples)


def rollout_of(method: Online, given: Learning, policy: Policy) -> Rollout:
    """What ``policy`` writes in the first step of a method."""
    with OnlineTrainer(method, given, "look", [(policy, 0.0)]) as trainer:
        return next(trainer.rollouts(policy))
