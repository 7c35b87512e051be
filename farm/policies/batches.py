"""Hidden states of a language model at chosen places of many sequences, without wasted work.

Sequences are sorted by length and cut into batches of about equally long ones, padded on the right, at the places where
that costs least: a batch costs its tokens, padding included, and something for being one more. Under causal
attention a place never sees what stands to its right, so no attention mask is needed, the padding can be any token,
and a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from farm.protocols import Samples

Lengths = NDArray[np.int64]

TOKENS = {"cpu": 2048}
"""Padded tokens of a batch by device type: what fits a processor's cache is fastest there."""
TOKENS_ELSEWHERE = 32768

ONE_MORE = {"cpu": 64}
"""What one more batch costs by device type, in tokens: the work that does not depend on its size."""
ONE_MORE_ELSEWHERE = 4096


def prompt_lengths(samples: Samples) -> Lengths:
    return np.array([len(tokens) for tokens in samples.prompt_tokens], dtype=np.int64)


def response_mask(lengths: Lengths, device: torch.device) -> torch.Tensor:
    """bool [B, T]: which places of the padded responses are real; T is the longest response."""
    counts = torch.from_numpy(lengths).to(device)
    return torch.arange(int(lengths.max(initial=0)), device=device) < counts[:, None]


def response_ids(samples: Samples, device: torch.device) -> torch.Tensor:
    """The tokens of all responses one after the other, int64 [N]."""
    tokens = [np.asarray(t, dtype=np.int64) for t in samples.response_tokens]
    return torch.from_numpy(np.concatenate(tokens) if tokens else np.zeros(0, np.int64)).to(device)


def unflatten(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[N] or [N, V] values of the real places, in row order, as [B, T] or [B, T, V] with zeros where masked."""
    out = flat.new_zeros(mask.shape + flat.shape[1:])
    return out.masked_scatter(mask if flat.dim() == 1 else mask[..., None], flat)


def states_at(
    body: Callable[[torch.Tensor], torch.Tensor],
    width: int,
    samples: Samples,
    first: Lengths,
    counts: Lengths,
    device: torch.device,
    passes: Callable[[int], int] | None = None,
) -> torch.Tensor:
    """The states at places ``first[i] .. first[i] + counts[i] - 1`` of sequence i (prompt and response), in row order.

    Args:
        body: token ids [b, t] to states [b, t, h] of a causal model, with h = ``width``.
        first, counts: [B]; every place lies in its sequence.
        passes: how often ``body`` must be called, given how often it is needed; the rest are calls on one token, which
            count for nothing.

    Returns:
        [N, h] with N the sum of ``counts``.
    """
    needed = first + counts  # what comes after the last place asked for cannot change it
    rows: list[NDArray[np.int64]] = []
    parts: list[torch.Tensor] = []
    most, one_more = TOKENS.get(device.type, TOKENS_ELSEWHERE), ONE_MORE.get(device.type, ONE_MORE_ELSEWHERE)
    batches = cheapest_batches(needed, most, one_more)
    idle = 0 if passes is None else passes(len(batches)) - len(batches)
    for batch in batches:
        longest = int(needed[batch].max())
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        for line, row in enumerate(batch):
            prompt, response = samples.prompt_tokens[row], samples.response_tokens[row]
            ids[line, : len(prompt)] = prompt[:longest]
            ids[line, len(prompt) : needed[row]] = response[: needed[row] - len(prompt)]
        places = np.arange(longest)
        wanted = (places >= first[batch, None]) & (places < needed[batch, None])
        states = body(torch.from_numpy(ids).to(device))
        parts.append(states.flatten(0, 1)[torch.from_numpy(np.flatnonzero(wanted)).to(device)])
        rows.append(np.repeat(batch, counts[batch]))
    found = torch.zeros(0, width, device=device)
    if parts:
        back = np.argsort(np.concatenate(rows), kind="stable")
        found = torch.cat(parts)[torch.from_numpy(back).to(device)]
    for _ in range(idle):
        found = found + 0 * body(torch.zeros(1, 1, dtype=torch.int64, device=device)).sum()
    return found


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


def check_lengths(lengths: Sequence[int] | Lengths, context: int | None, prompts: Sequence[str], what: str) -> None:
    """Raise UserError for the first row longer than the model's context."""
    from farm.errors import UserError

    if context is not None and (np.asarray(lengths) > context).any():
        row = int((np.asarray(lengths) > context).argmax())
        raise UserError(
            f"row {row} ({prompts[row][:60]!r}): {what} of {lengths[row]} tokens does not fit the model's context "
            f"of {context} tokens; shorten it or leave it out"
        )
