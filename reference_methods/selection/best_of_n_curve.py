"""Best-of-n for every n at once: how the true utility and the reward go apart as one searches further.

    of M samples of a prompt, in the order of reward, the i-th is the best of n drawn from them with probability
    C(i - 1, n - 1) / C(M, n);    KL(best of n || pi_ref) = log n - (n - 1) / n

so one pool of samples gives the expected reward and gold utility of best-of-n for each n up to M, without chance in the
choice. One line is logged for each n (``n``, ``kl``, ``reward``, ``gold``): the cheapest curve of over-optimization
(Gao et al., arXiv 2210.10760), since nothing is trained. The samples depend on the seed and not on the reward model, so
that reward models are compared on the same answers. What is returned is best-of-n with ``n``, as in ``best_of_n``.

Estimator: Nakano et al. (arXiv 2112.09332), appendix I. The KL is exact for rewards without ties, an upper bound else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from farm.base.arrays import Floats
from farm.base.bounds import Count, Positive
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from farm.tables.turns import Prompt, prompts_of
from reference_methods.parts.batches import in_parts, prompt_stream, tokens_at_once
from reference_methods.parts.checkpoints import log_once
from reference_methods.selection.best_of_n import CANDIDATES_AT_ONCE, BestOfN


@dataclass(frozen=True, kw_only=True)
class BestOfNCurve(BestOfN):
    """Measures best-of-n for all n, and returns it for one."""

    prompts: Count = 200
    """how many prompts are sampled for"""
    candidates: Count = 128
    """M, the samples of each; n is 1, 2, 4, ... up to it"""
    temperature: Positive = 1.0

    def train(self, learning: Learning) -> Policy:
        if not len(learning.prompts):
            raise UserError("best_of_n_curve needs prompts to sample for: raise `sizes.prompts`")
        policy = super().train(learning)
        instructions = prompts_of(learning.prompts)
        (prompts,) = prompt_stream(instructions, self.prompts, 1, learning.seed, "best_of_n_curve")
        prompts = list(dict.fromkeys(prompts))
        sizes = [2**k for k in range(int(math.log2(self.candidates)) + 1)]
        learning.steps(len(sizes))
        rewards, gold = self._pool(learning, prompts)
        for step, n in enumerate(sizes):
            line = {
                "step": step,
                "n": n,
                "kl": math.log(n) - (n - 1) / n,
                "reward": _mean(expected_best(rewards, rewards, n)),
            }
            if gold is not None:
                best = expected_best(gold, rewards, n)
                line["gold"] = _mean(best)
                if len(best) > 1:
                    line["gold_error"] = float(best.std(ddof=1) / math.sqrt(len(best)))
            log_once(learning.log, line)
        return policy

    def _pool(self, learning: Learning, prompts: list[Prompt]) -> tuple[Floats, Floats | None]:
        """Reward and gold of M samples to each prompt, [prompts, M]."""
        scorer = self.scorer(learning)
        each = max(1, CANDIDATES_AT_ONCE // self.candidates)
        rewards, gold = [], []
        for start in range(0, len(prompts), each):
            asked = prompts[start : start + each]
            samples = learning.policy.sample(
                [prompt for prompt in asked for _ in range(self.candidates)],
                seed=learning.seed,
                purpose="best_of_n_curve",
                temperature=self.temperature,
            )
            tokens = tokens_at_once(self.micro_batch_tokens, scorer, training=False)
            scores = in_parts(scorer.scores, samples, tokens)
            rewards.append(scores.double().cpu().numpy().reshape(len(asked), -1))
            if learning.gold is not None:
                gold.append(learning.gold(samples).reshape(len(asked), -1))
        return np.concatenate(rewards), np.concatenate(gold) if gold else None


def expected_best(values: Floats, rewards: Floats, n: int) -> Floats:
    """The expected value of the best of n by reward, drawn without replacement from each row: [P, M] -> [P]."""
    rank = np.arange(1, rewards.shape[1] + 1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weight = _log_choose(rank - 1, n - 1) - _log_choose(np.array(float(len(rank))), n)
    weight = np.where(rank >= n, np.exp(log_weight), 0.0)
    ordered = np.take_along_axis(values, np.argsort(rewards, axis=1, kind="stable"), axis=1)
    return np.asarray(ordered @ weight)


def _log_choose(total: Floats, chosen: int) -> Floats:
    return np.asarray(gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1))


def _mean(values: Floats) -> float:
    return float(values.mean())
