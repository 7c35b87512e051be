"""Which rows are trained on together: keyed shuffles, minibatches of like lengths, micro-batches of bounded size.

A *minibatch* is what one optimizer step sees, and its size is a setting of the method. A *micro-batch* is what fits
into memory at once; cutting a minibatch into micro-batches changes no gradient (see ``aggregation``), only how much
padding is computed and how much memory is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.rng import Ids
from farm.hardware import memory, processes
from farm.policies.batches import onto, prompt_lengths
from farm.policies.trees import same_prompts
from farm.roles.protocols import Draws, Policy, Samples
from farm.tables.turns import Prompt, prompt_ids
from reference_methods.parts.aggregation import Aggregation, Totals, aggregate
from reference_methods.parts.precision import inner

Rows = NDArray[np.int64]
Lengths = NDArray[np.int64]

ON_A_PROCESSOR = 4096
"""tokens of a micro-batch: more are no faster"""
LEAST, MOST = 512, 65536
"""of a micro-batch on an accelerator, whatever the memory"""

BUCKET = 8
"""minibatches of neighbouring lengths are made from this many minibatches' worth of shuffled rows"""


def total_lengths(samples: Samples) -> Lengths:
    """Prompt and response tokens of each sample, [B]."""
    return samples.lengths() + prompt_lengths(samples)


@dataclass(frozen=True)
class TrainingRows:
    """What the batching of n rows takes: their order, what each costs to compute, and what it counts in a mean."""

    ids: Ids
    """what decides the order of the rows"""
    lengths: Lengths
    """the tokens that a pass computes"""
    tokens: NDArray[Any]
    """the tokens in the loss"""
    weights: NDArray[np.float64] | None = None
    prompts: Rows | None = None
    """a number for each row's prompt: rows with the same one are computed together"""

    @classmethod
    def of(cls, samples: Samples, by_prompt: bool = False) -> TrainingRows:
        prompts = same_prompts(samples.prompt_tokens) if by_prompt else None
        ids = np.arange(len(samples), dtype=np.uint64)
        return cls(ids, total_lengths(samples), samples.lengths(), prompts=prompts)

    def batch(self, rows: Rows) -> Batch:
        weight = np.ones(len(rows)) if self.weights is None else self.weights[rows]
        return Batch(self, rows, Totals(float(weight.sum()), float((weight * self.tokens[rows]).sum())))


@dataclass(frozen=True)
class Batch:
    """A minibatch, or the part of one that is computed at once."""

    source: TrainingRows
    rows: Rows
    totals: Totals
    """of the whole minibatch"""
    first: bool = False
    """whether the policy is still the one whose samples these are, to the bit"""
    before: Tensor | None = None
    """log-probabilities of all rows' tokens under the policy that sampled, computed in this minibatch's own parts,
    [n, T]; None where rounding makes no difference"""

    def old(self, new: Tensor, sampled: Tensor) -> Tensor:
        """log pi_old of these rows, without gradient, in the shape of ``new``: what its ratio is taken to.

        Args:
            new: log-probabilities under the policy as it is, of tokens [b, T] or of responses [b].
            sampled: of all rows' tokens under the policy that sampled, in whatever parts they were computed, [n, T].
        """
        if self.first:
            return new.detach()
        old = (sampled if self.before is None else self.before)[index(self.rows, new)]
        return old.sum(1) if new.dim() == 1 else old[:, : new.shape[1]]

    def mean(
        self, values: Tensor, mask: Tensor | None = None, how: Aggregation = "token_mean", horizon: int | None = None
    ) -> Tensor:
        """These rows' share of the minibatch's mean, of a value a row [b] or, with a ``mask``, a token [b, T]."""
        if mask is None:
            return values.sum() / self.totals.sequences
        given = self.source.weights
        weights = None if given is None else onto(given[self.rows], values.device).to(values.dtype)
        return aggregate(values, mask, how, self.totals, weights, horizon)


def minibatches(
    ids: Ids, lengths: Lengths, size: int, epochs: int, seed: int, purpose: str, bucket: int = BUCKET
) -> list[Rows]:
    """The rows of every optimizer step: each row once an epoch, in an order that its id decides.

    Rows are shuffled; then those of each ``bucket`` minibatches are sorted by length and dealt out, so that a
    minibatch has little padding; then the minibatches are shuffled. The last one of an epoch may be smaller.
    """
    batches = []
    for epoch in range(epochs):
        order = rng.permutation(ids, seed, f"{purpose}/epoch {epoch}")
        drawn = []
        for start in range(0, len(order), size * bucket):
            window = order[start : start + size * bucket]
            window = window[np.argsort(lengths[window], kind="stable")]
            drawn += [window[i : i + size] for i in range(0, len(window), size)]
        shuffled = rng.generator(seed, f"{purpose}/batches", epoch).permutation(len(drawn))
        batches += [drawn[i] for i in shuffled]
    return batches


def micro_batches(rows: Rows, lengths: Lengths, tokens: int, prompts: Rows | None = None) -> list[Rows]:
    """``rows`` cut by length so that each part, padded to its longest, has at most ``tokens`` (but at least a row).

    With ``prompts``, a number for each prompt [n], rows with the same one stay together, so that a model computes their
    prompt once (``farm.policies.trees``); a part then has at most ``tokens`` without any padding, and half as many
    more with it.
    """
    if prompts is not None:
        return _by_prompt(rows, lengths, tokens, prompts)
    ordered = rows[np.argsort(-lengths[rows], kind="stable")]
    parts, start = [], 0
    while start < len(ordered):
        fitting = max(1, tokens // max(1, int(lengths[ordered[start]])))
        parts.append(ordered[start : start + fitting])
        start += fitting
    return parts


def tokens_at_once(setting: int | Literal["auto"], *networks: Any, training: bool = True) -> int:
    """The most tokens of a micro-batch: as set, or ("auto") as many as 70 % of the memory that their device has left
    hold, besides the gradients and moments that are still to come; ``ON_A_PROCESSOR`` on anything but CUDA.

    Of several processes, all of which must ask, the least: who shares samples must cut them into the same parts."""
    if isinstance(setting, int):
        return setting
    bodies = [body for network in networks if (body := getattr(inner(network), "body", None)) is not None]
    left = memory.free(bodies[0].device) if bodies else None
    if left is None:
        return ON_A_PROCESSOR
    trained = sum(p.numel() for network in networks for p in network.parameters() if p.requires_grad)
    room = 0.7 * (left - 2**30 - (12 * trained if training else 0))  # a GiB of logits
    found = int(min(max(room / sum(body.bytes_a_token(training) for body in bodies), LEAST), MOST))
    return -processes.max_over_ranks(-found)


def own_parts(batch: Batch, tokens: int) -> list[Rows]:
    """The micro-batches of a minibatch that this process computes."""
    return micro_batches(processes.share(batch.rows), batch.source.lengths, tokens, batch.source.prompts)


def _by_prompt(rows: Rows, lengths: Lengths, tokens: int, prompts: Rows) -> list[Rows]:
    group = prompts[rows]
    longest = np.zeros(int(prompts.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(longest, group, lengths[rows])
    ordered = rows[np.lexsort((-lengths[rows], group, -longest[group]))]
    until = np.cumsum(lengths[ordered])
    parts, start, before = [], 0, 0
    while start < len(ordered):
        end = int(np.searchsorted(until, before + tokens, side="right"))
        padded = max(1, int(longest[prompts[ordered[start]]]))
        end = max(start + 1, min(end, start + 3 * tokens // (2 * padded)))
        parts.append(ordered[start:end])
        start, before = end, int(until[end - 1])
    return parts


def prompt_stream(prompts: Sequence[Prompt], size: int, steps: int, seed: int, purpose: str) -> Iterator[list[Prompt]]:
    """``steps`` batches of ``size`` prompts: all prompts in a keyed order, then all again in another, and so on."""
    ids = prompt_ids(prompts)
    passes = np.arange(-(-size * steps // len(prompts)), dtype=np.uint64)
    order = np.argsort(rng.bits(seed, f"{purpose}/prompts", passes[:, None], ids[None]), axis=1, kind="stable").ravel()
    for step in range(steps):
        yield [prompts[i] for i in order[step * size : (step + 1) * size]]


def further_prompts(
    prompts: Sequence[Prompt], number: int, asked: Collection[Prompt], seed: int, purpose: str
) -> list[Prompt]:
    """``number`` prompts in a keyed order, those that were not asked first."""
    asked, keys = set(asked), rng.bits(seed, purpose, prompt_ids(prompts))
    order = np.lexsort((keys, np.array([prompt in asked for prompt in prompts])))
    return [prompts[i] for i in order[np.arange(number) % len(order)].tolist()]


def sampled(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    seed: int,
    purpose: str,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    draws: Draws | None = None,
) -> Samples:
    """What ``policy`` answers to these prompts: of the processes that train each samples a share, and all have all."""
    mine = processes.by_prompt(prompts)
    samples = processes.raise_together(
        lambda: policy.sample(
            [prompts[i] for i in mine],
            seed=seed,
            purpose=purpose,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            draws=None if draws is None else [int(draws[i]) for i in mine],
        )
    )
    return processes.all_samples(samples, mine, len(prompts))


@torch.no_grad()
def in_parts(compute: Callable[[Samples], Tensor], samples: Samples, tokens: int, together: bool = False) -> Tensor:
    """``compute`` on micro-batches of ``samples``, without gradient: [B] or, padded with zeros, [B, T].

    ``together`` shares the work among the processes that train, all of which must then ask; else each does it all.
    """
    everyone = np.arange(len(samples))
    if together:  # their devices have not equally much memory left, and the parts that they share must be the same
        tokens = -processes.max_over_ranks(-tokens)
    parts = micro_batches(everyone, total_lengths(samples), tokens, same_prompts(samples.prompt_tokens))
    alone = not together or len(parts) < processes.world_size()
    if not alone:
        parts = parts[processes.rank() :: processes.world_size()]

    def everything() -> list[Tensor]:
        with memory.explained("a pass over samples", "lower micro_batch_tokens"):
            return [compute(samples.select(rows)) for rows in parts]

    found = everything() if alone else processes.raise_together(everything)
    first = found[0]
    widths = [max(f.shape[d] for f in found) for d in range(1, first.dim())]
    if not alone and widths:
        widths[0] = int(samples.lengths().max(initial=0))  # the longest response may be another process's
    out = first.new_zeros([len(samples), *widths])
    for rows, values in zip(parts, found, strict=True):
        where = index(rows, out)
        if values.dim() == 1:
            out[where] = values
        else:
            out[where, : values.shape[1]] = values
    return out if alone else processes.all_reduce_sum(out)


def log_likelihoods(policy: Policy, samples: Samples) -> Tensor:
    """log pi(y|x) of whole responses, summed over their tokens, [B] with gradient."""
    return policy.log_probabilities(samples)[0].sum(1)


def index(rows: Rows, like: Tensor) -> Tensor:
    """Rows as an index for tensors on the device of ``like``."""
    return onto(rows, like.device)
