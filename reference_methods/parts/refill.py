"""Dynamic sampling: groups of responses with nothing to learn from make room for the groups of further prompts.

Where rewards are few-valued, more and more groups have one reward in common as the policy learns, and a batch teaches
less and less. DAPO (arXiv 2503.14476, eq. 11) samples on until the batch is full of groups that differ. Here a round
asks for as many further prompts as groups are missing, for a limited number of rounds; what is still missing then is
made up of groups without a difference, which the method may drop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from farm import rng
from farm.protocols import Samples
from reference_methods.parts.rollouts import Rollout


def refilled(
    first: Rollout,
    group_size: int,
    rounds: int,
    useful: Callable[[Rollout], NDArray[np.bool_]],
    sample: Callable[[int, int, set[str]], Rollout],
) -> Rollout:
    """A batch as large as ``first`` with as many useful groups as were found; ``everything`` is all that was sampled.

    Args:
        rounds: how often to sample again, at most.
        useful: whether there is something to learn from a response's group, [B].
        sample: given the number of the round, how many groups to sample, and the prompts that were asked already.
    """
    parts = [first]
    while True:
        everything = joined(parts)
        good = useful(everything)
        missing = (len(first.samples) - int(good.sum())) // group_size
        if missing <= 0 or len(parts) > rounds:
            break
        parts.append(sample(len(parts), missing, set(everything.samples.prompts)))
    rows = np.concatenate([np.flatnonzero(good), np.flatnonzero(~good)])[: len(first.samples)]
    return replace(everything.select(rows), everything=everything)


def further_prompts(prompts: Sequence[str], number: int, asked: set[str], seed: int, purpose: str) -> list[str]:
    """``number`` prompts in a keyed order, those that were not asked first."""
    keys = rng.bits(seed, purpose, rng.text_ids(prompts))
    order = np.lexsort((keys, np.array([prompt in asked for prompt in prompts])))
    return [prompts[i] for i in order[np.arange(number) % len(order)].tolist()]


def joined(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts one after the other, padded to the longest response; the comparison and the start are the first's."""
    first, width = parts[0], max(part.mask.shape[1] for part in parts)

    def rows(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    corrected = any(part.weights is not None for part in parts)
    return replace(
        first,
        samples=Samples.concatenate([part.samples for part in parts]),
        mask=rows([part.mask for part in parts]),
        log_probabilities=rows([part.log_probabilities for part in parts]),
        reference=rows([part.reference for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        weights=rows([part.token_weights() for part in parts]) if corrected else None,
    )
