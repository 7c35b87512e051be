"""Diverse best-of-n: of n responses to a prompt keep the best of each kind, where people say which ones are alike.

    z = W f(y),    f the mean hidden state of a response,    W fitted to triplets: "is b or c nearer to a?"
    bins of z on a grid around the triplets' responses;   the elite of a bin is what the reward model scores highest

Nothing of the policy is trained. The answers to one prompt are the elites of its n candidates, best first: the first is
that of best-of-n, the k-th another kind of response, and after the last the first comes again.

Paper: QDHF (Ding et al., arXiv 2310.12103), whose optimiser (MAP-Elites, latent noise of a diffusion model) is replaced
by samples of the policy, as for its images one could. Its defaults of the fit: margin .05, two dimensions. Ours: n 16,
four bins a dimension, features of mean 0 and deviation 1 over the triplets' responses, one fit to all triplets where
the paper asks again on what it found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Positive, Several
from farm.policies import read_descriptor, write_descriptor
from farm.policies.tabular import occurrences
from farm.roles.protocols import Draws, Learning, Policy, Samples, Scorer
from farm.roles.work import Texts
from farm.tables.turns import Prompt, prompts_of
from reference_methods.parts.batches import in_parts, tokens_at_once
from reference_methods.parts.choosing import Choosing, load_parts
from reference_methods.parts.embedding import embedded
from reference_methods.parts.scored import Scored
from reference_methods.parts.similarity import Grid, Triplets, best_of_cells, fit_projection
from reference_methods.selection.best_of_n import CANDIDATES_AT_ONCE

MEASURE = "measure.safetensors"


@dataclass(frozen=True, kw_only=True)
class DiverseBestOfN(Scored, Bounded):
    """Puts the reward model and a measure of similarity, fitted to ``triplets``, behind the policy."""

    n: Count = 16
    """responses drawn for each prompt"""
    bins: Several = 4
    """along each of two dimensions of z"""
    margin: Positive = 0.05
    """by which what is called nearer should be"""
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """most tokens, padding included, computed at once; ``auto`` is what an accelerator's memory holds"""

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"triplets"}

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        return Texts()  # its responses are those of the answers

    def train(self, learning: Learning) -> Policy:
        scorer, policy, table = self.scorer(learning), learning.policy, learning.feedback["triplets"]
        tokens = tokens_at_once(self.micro_batch_tokens, scorer, policy, training=False)
        prompts = prompts_of(table)
        texts = (table[column].tolist() for column in ("anchor", "output_1", "output_2"))
        looks = [embedded(policy, policy.encode(prompts, text), tokens) for text in texts]
        every = np.concatenate(looks)
        scale = np.maximum(every.std(0), 1e-6)
        anchor, first, second = (look / scale for look in looks)
        triplets = Triplets.of(anchor, first, second, table["nearer"].to_numpy(np.float64))
        weights, accuracy = fit_projection(triplets, seed=learning.seed, margin=self.margin)
        learning.log({"step": 0, "held_out_accuracy": accuracy})
        weights = weights / scale
        return DiverseBestOfNPolicy(policy, scorer, weights, Grid.around(every @ weights.T, self.bins), self.n, tokens)


class DiverseBestOfNPolicy(Choosing):
    """The policy that returns the elites of n samples of another."""

    def __init__(
        self,
        policy: Policy,
        scorer: Scorer,
        weights: Floats,
        grid: Grid,
        n: int,
        micro_batch_tokens: int = 4096,
    ) -> None:
        super().__init__(policy, scorer, n, micro_batch_tokens)
        self.weights, self.grid = weights, grid

    @property
    def kl_bound(self) -> float:
        """log n: the most that the KL of any choice of one among n samples to their policy can be, in nats."""
        return math.log(self.n)

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
        """As :meth:`farm.roles.protocols.Policy.sample`. A prompt has candidates 0 .. n - 1, whatever else is asked,
        and the k-th draw is the k-th of their elites."""
        number = occurrences(prompts) if draws is None else np.asarray(draws, dtype=np.uint64)
        distinct = list(dict.fromkeys(prompts))
        asked = {prompt: prompts.count(prompt) for prompt in distinct}
        elites: dict[Prompt, Samples] = {}
        size = max(1, CANDIDATES_AT_ONCE // self.n)
        for start in range(0, len(distinct), size):
            chunk = distinct[start : start + size]
            candidates = self.policy.sample(
                [prompt for prompt in chunk for _ in range(self.n)],
                seed=seed,
                purpose=purpose,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                draws=[i for _ in chunk for i in range(self.n)],
            )
            for place, kept in enumerate(self.elites(candidates)):
                elites[chunk[place]] = candidates.select(kept)
            if progress:
                progress(sum(asked[prompt] for prompt in chunk))
        chosen = [elites[p].select(np.array([int(k) % len(elites[p])])) for p, k in zip(prompts, number, strict=True)]
        return Samples.concatenate(chosen) if chosen else self.policy.encode([], [])

    def elites(self, candidates: Samples) -> list[NDArray[np.int64]]:
        """Of each prompt's n candidates, one prompt after the other, the rows of the best of each bin, best first."""
        scores = in_parts(self.reward_model.scores, candidates, self.micro_batch_tokens).double().cpu().numpy()
        cells = self.grid.cells(embedded(self.policy, candidates, self.micro_batch_tokens) @ self.weights.T)
        starts = range(0, len(candidates), self.n)
        return [s + best_of_cells(cells[s : s + self.n], scores[s : s + self.n]) for s in starts]

    def copy(self) -> DiverseBestOfNPolicy:
        settings = self.weights, self.grid, self.n, self.micro_batch_tokens
        return DiverseBestOfNPolicy(self.policy.copy(), self.reward_model.copy(), *settings)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        settings = {"n": self.n, "bins": self.grid.bins, "micro_batch_tokens": self.micro_batch_tokens}
        write_descriptor(folder, DiverseBestOfNPolicy, settings)
        self.save_parts(folder)
        save_file({"weights": self.weights, "low": self.grid.low, "high": self.grid.high}, folder / MEASURE)

    @classmethod
    def load(cls, folder: Path) -> DiverseBestOfNPolicy:
        from safetensors.numpy import load_file

        settings, tensors = read_descriptor(folder), load_file(folder / MEASURE)
        policy, scorer = load_parts(folder)
        grid = Grid(tensors["low"], tensors["high"], settings["bins"])
        return cls(policy, scorer, tensors["weights"], grid, settings["n"], settings["micro_batch_tokens"])
