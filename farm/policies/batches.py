"""Hidden states of a language model at chosen places of many sequences, without wasted work.

Rows with the same prompt become one sequence where that is cheaper (:mod:`farm.policies.trees`). Sequences are sorted
by length and cut into batches of about equally long ones, padded on the right, at the places where
that costs least: a batch costs its tokens, padding included, and something for being one more. Under causal
attention a place never sees what stands to its right, so no attention mask is needed, the padding can be any token,
and a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from farm.policies.trees import Lengths, Rows, group_into_trees, same_prompts
from farm.roles.protocols import Samples
from farm.tables.turns import Prompt, turns_of

TOKENS = {"cpu": 2048}
"""Padded tokens of a batch by device type: what fits a processor's cache is fastest there."""
TOKENS_ELSEWHERE = 32768

ONE_MORE = {"cpu": 64}
"""What one more batch costs by device type, in tokens: the work that does not depend on its size."""
ONE_MORE_ELSEWHERE = 4096


def onto(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array as a tensor there, without waiting for what the device still computes."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def prompt_lengths(samples: Samples) -> Lengths:
    """Prompt tokens of each sample, [B]."""
    return np.array([len(tokens) for tokens in samples.prompt_tokens], dtype=np.int64)


def response_mask(lengths: Lengths, device: torch.device) -> torch.Tensor:
    """bool [B, T]: which places of the padded responses are real; T is the longest response."""
    counts = onto(lengths, device)
    return torch.arange(int(lengths.max(initial=0)), device=device) < counts[:, None]


def response_ids(samples: Samples, device: torch.device) -> torch.Tensor:
    """The tokens of all responses one after the other, int64 [N]."""
    tokens = [np.asarray(t, dtype=np.int64) for t in samples.response_tokens]
    return onto(np.concatenate(tokens) if tokens else np.zeros(0, np.int64), device)


def unflatten(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[N] or [N, V] values of the real places, in row order, as [B, T] or [B, T, V] with zeros where masked."""
    # Not by masked_scatter: its backward pass selects by the mask, and an accelerator is waited for to say how many.
    place = (mask.flatten().cumsum(0) - 1).clamp_(min=0)
    spread = flat.index_select(0, place).view(mask.shape + flat.shape[1:])
    return torch.where(mask if flat.dim() == 1 else mask[..., None], spread, 0)


def of_sampled(distributions: torch.Tensor, samples: Samples, mask: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of the samples' own tokens among those of all tokens: [B, T, V], bool [B, T] -> [B, T]."""
    tokens = unflatten(response_ids(samples, mask.device), mask)
    return distributions.gather(-1, tokens[..., None])[..., 0]


class Causal(Protocol):
    """A causal model: token ids [b, t] to states [b, t, h]."""

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, branches: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Of trees ``positions`` and ``branches`` are given for each token, int64 [b, t]."""


def states_at(
    body: Causal,
    width: int,
    samples: Samples,
    first: Lengths,
    counts: Lengths,
    device: torch.device,
    passes: Callable[[int], int] | None = None,
    trees_of: int | None = None,
    below: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The states at places ``first[i] .. first[i] + counts[i] - 1`` of sequence i (prompt and response), in row order.

    Args:
        body: gives states of ``width`` numbers.
        first, counts: [B]; every place lies in its sequence.
        passes: how often ``body`` must be called, given how often it is needed; the rest are calls on one token, which
            count for nothing.
        trees_of: the width of the model, if it can compute trees; None where each row is computed by itself.
        below: of each row the states that ``body`` is given in place of token ids, at least as many as are needed.

    Returns:
        [N, h] with N the sum of ``counts``.
    """
    needed = first + counts  # what comes after the last place asked for cannot change it
    rows: list[NDArray[np.int64]] = []
    parts: list[torch.Tensor] = []
    most, one_more = TOKENS.get(device.type, TOKENS_ELSEWHERE), ONE_MORE.get(device.type, ONE_MORE_ELSEWHERE)
    trees, lengths = _trees(samples, needed, trees_of)
    batches = cheapest_batches(lengths, most, one_more)
    idle = 0 if passes is None else passes(len(batches)) - len(batches)
    for batch in batches:
        block = _Block([trees[i] for i in batch], int(lengths[batch].max()))
        for line, tree in enumerate(block.trees):
            block.write(line, tree, samples, needed)
        given = block.tensors(device)
        if below is not None:
            given = (block.spread(below, needed, device), *given[1:])
        states = body(*given)
        places = [block.places(row, int(first[row]), int(counts[row])) for row in block.start]
        parts.append(states.flatten(0, 1)[onto(np.concatenate(places), device)])
        rows.append(np.repeat(list(block.start), counts[list(block.start)]))
    found = torch.zeros(0, width, device=device)
    if parts:
        back = np.argsort(np.concatenate(rows), kind="stable")
        found = torch.cat(parts)[onto(back, device)]
    for _ in range(idle):
        found = found + 0 * body(torch.zeros(1, 1, dtype=torch.int64, device=device)).sum()
    return found


def _trees(samples: Samples, needed: Lengths, trees_of: int | None) -> tuple[list[Rows], Lengths]:
    """Which rows are computed as one sequence, and how long that is."""
    prompts = prompt_lengths(samples)
    if trees_of is None:
        return list(np.arange(len(needed))[:, None]), needed
    responses = np.maximum(needed - prompts, 0)
    trees = group_into_trees(same_prompts(samples.prompt_tokens), prompts, responses, trees_of)
    lengths = [min(prompts[tree[0]], needed[tree].max()) + responses[tree].sum() for tree in trees]
    return trees, np.array(lengths, dtype=np.int64)


class _Block:
    """The token ids of a few sequences, padded on the right to one length, and where each row stands in them."""

    def __init__(self, trees: list[Rows], longest: int) -> None:
        self.trees, self.longest = trees, longest
        shape = len(trees), longest
        self.ids, self.positions, self.branches = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        self.start: dict[int, tuple[int, int, int]] = {}
        """of each row: where its sequence begins in the flattened block, the length of its prompt, and how far its
        response stands behind that"""

    def write(self, line: int, tree: Rows, samples: Samples, needed: Lengths) -> None:
        prompt = samples.prompt_tokens[tree[0]][: needed[tree].max()]
        self.ids[line, : len(prompt)] = prompt
        self.positions[line, : len(prompt)] = np.arange(len(prompt))
        place = len(prompt)
        for branch, row in enumerate(tree, start=1):
            self.start[int(row)] = line * self.longest, len(prompt), place - len(prompt)
            response = samples.response_tokens[row][: max(0, needed[row] - len(prompt))]
            here = slice(place, place + len(response))
            self.ids[line, here], self.branches[line, here] = response, branch
            self.positions[line, here] = len(prompt) + np.arange(len(response))
            place += len(response)

    def places(self, row: int, first: int, count: int) -> NDArray[np.int64]:
        """Where the states of a row's places are in the flattened block."""
        begin, prompt, behind = self.start[row]
        place = np.arange(first, first + count)
        return begin + place + behind * (place >= prompt)

    def spread(self, states: Sequence[torch.Tensor], needed: Lengths, device: torch.device) -> torch.Tensor:
        """The states of each row's first ``needed`` tokens where these tokens are, and 0 at padding, [b, t, h]."""
        places = np.concatenate([self.places(row, 0, int(needed[row])) for row in self.start])
        found = torch.cat([states[row][: needed[row]] for row in self.start])
        out = found.new_zeros(len(self.trees) * self.longest, found.shape[1])
        return out.index_copy_(0, onto(places, device), found).view(len(self.trees), self.longest, -1)

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """What the model is called with: plain sequences need neither positions nor branches."""
        given = [self.ids] if all(len(tree) == 1 for tree in self.trees) else [self.ids, self.positions, self.branches]
        return tuple(onto(array, device) for array in given)


def cheapest_batches(lengths: Lengths, most: int, one_more: int) -> list[NDArray[np.int64]]:
    """Rows in order of length, longest first, cut where the whole costs least; rows of length 0 are left out.

    A batch has at most ``most`` tokens when padded to its longest row (but at least a row), and costs these tokens and
    ``one_more``. The best cut of the first k rows is the best last batch after the best cut of the rows before it.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    ordered, n = lengths[order].astype(np.int64), len(order)
    cost = np.zeros(n + 1, dtype=np.int64)
    last = np.zeros(n + 1, dtype=np.int64)
    earliest = 0
    for end in range(1, n + 1):
        while earliest < end - 1 and ordered[earliest] * (end - earliest) > most:
            earliest += 1
        begin = np.arange(earliest, end)
        found = cost[earliest:end] + ordered[earliest:end] * (end - begin) + one_more
        cheapest = int(found.argmin())
        cost[end], last[end] = found[cheapest], earliest + cheapest
    cuts = [n]
    while cuts[-1]:
        cuts.append(int(last[cuts[-1]]))
    return [order[start:end] for end, start in zip(cuts[-2::-1], cuts[:0:-1], strict=True)]


def check_lengths(lengths: Sequence[int] | Lengths, context: int | None, prompts: Sequence[Prompt], what: str) -> None:
    """Raise UserError for the first row longer than the model's context."""
    from farm.base.errors import UserError

    if context is not None and (np.asarray(lengths) > context).any():
        row = int((np.asarray(lengths) > context).argmax())
        raise UserError(
            f"row {row} ({turns_of(prompts[row])[0][:60]!r}): {what} of {lengths[row]} tokens does not fit the model's "
            f"context of {context} tokens; shorten it or leave it out"
        )
