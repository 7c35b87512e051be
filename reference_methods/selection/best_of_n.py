"""Best-of-n: sample n responses to each prompt and keep the one that the reward model scores highest.

    y* = argmax over i <= n of r(x, y_i),   y_i ~ pi_ref(.|x)

Nothing is trained: the result is the SFT policy with a reward model behind it. Of finitely many responses with distinct
rewards, the law of y* is F(y)^n - F(y-)^n with F the distribution function of the reward; it beats one sample with
probability n / (n + 1) by that reward, and KL(y* || pi_ref) <= log n - (n - 1) / n, with equality for continuous r.

Paper: Nakano et al. (arXiv 2112.09332), Stiennon et al. (arXiv 2009.01325). AlpacaFarm (arXiv 2305.14387): n = 1024 in
its table, 16 in its script, temperature 1. Default here: 16. Of equal scores the first drawn is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from farm.base.bounds import Bounded, Count
from farm.policies import read_descriptor, write_descriptor
from farm.roles.protocols import Draws, Learning, Policy, Samples
from farm.roles.work import Texts
from farm.tables.turns import Prompt
from reference_methods.parts.batches import in_parts, tokens_at_once
from reference_methods.parts.choosing import Choosing, load_parts
from reference_methods.parts.scored import Scored

CANDIDATES_AT_ONCE = 16_384
"""responses drawn before the best of them are chosen and the others forgotten"""


@dataclass(frozen=True, kw_only=True)
class BestOfN(Scored, Bounded):
    """Puts the reward model behind the policy."""

    n: Count = 16
    """responses drawn for each one returned"""
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """most tokens, padding included, scored at once; ``auto`` is what an accelerator's memory holds"""

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        return Texts()  # its responses are those of the answers

    def train(self, learning: Learning) -> Policy:
        scorer = self.scorer(learning)
        tokens = tokens_at_once(self.micro_batch_tokens, scorer, training=False)
        return BestOfNPolicy(learning.policy, scorer, self.n, tokens)


class BestOfNPolicy(Choosing):
    """The policy that returns the best of n samples of another."""

    @property
    def kl_bound(self) -> float:
        """log n - (n - 1) / n: the most that the KL to the sampled policy can be, in nats."""
        return math.log(self.n) - (self.n - 1) / self.n

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
        draws: Draws | None = None,
    ) -> Samples:
        """As :meth:`farm.roles.protocols.Policy.sample`. The k-th occurrence of a prompt has the candidates kn .. kn +
        n - 1, so that a larger n chooses from a superset at the first occurrence."""
        places: dict[Prompt, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)
        parts: list[Samples] = []
        order: list[int] = []
        report = _in_units(progress, self.n)
        for chunk in _chunks(list(places.values()), max(1, CANDIDATES_AT_ONCE // self.n)):
            candidates = self.policy.sample(
                [prompts[place] for place in chunk for _ in range(self.n)],
                seed=seed,
                purpose=purpose,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                progress=report,
                draws=None if draws is None else [int(draws[p]) * self.n + i for p in chunk for i in range(self.n)],
            )
            scores = in_parts(self.reward_model.scores, candidates, self.micro_batch_tokens).view(-1, self.n)
            best = scores.argmax(1).cpu().numpy()
            parts.append(candidates.select(np.arange(len(best)) * self.n + best))
            order += chunk
        return Samples.concatenate(parts).select(np.argsort(order)) if parts else self.policy.encode([], [])

    def copy(self) -> BestOfNPolicy:
        return BestOfNPolicy(self.policy.copy(), self.reward_model.copy(), self.n, self.micro_batch_tokens)

    def save(self, folder: Path) -> None:
        write_descriptor(folder, BestOfNPolicy, {"n": self.n, "micro_batch_tokens": self.micro_batch_tokens})
        self.save_parts(folder)

    @classmethod
    def load(cls, folder: Path) -> BestOfNPolicy:
        settings = read_descriptor(folder)
        policy, scorer = load_parts(folder)
        return cls(policy, scorer, settings["n"], settings["micro_batch_tokens"])


def _chunks(groups: list[list[int]], size: int) -> Iterator[list[int]]:
    """The groups joined to lists of at least ``size`` places; none is split, so occurrences count as in one call."""
    chunk: list[int] = []
    for group in groups:
        chunk += group
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _in_units(progress: Callable[[int], None] | None, n: int) -> Callable[[int], None] | None:
    """A progress callback that takes numbers of candidates and reports responses, n candidates each."""
    if progress is None:
        return None
    done = 0

    def report(candidates: int) -> None:
        nonlocal done
        before, done = done // n, done + candidates
        progress(done // n - before)

    return report
