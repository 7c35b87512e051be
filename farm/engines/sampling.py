"""Sampling: prefill each distinct prompt once, then one token a step for all rows that have not ended.

One uniform number is drawn for each (row, step) from its key (seed, purpose, prompt, occurrence, step), and the token
is found by inverting the cumulative distribution. So a draw does not depend on the batch that a row happened to be in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base import rng
from farm.hardware import memory
from farm.roles.protocols import Request, Tokens, Written

NEVER = -1.0e4
"""The logit of a forbidden token: its probability is exactly 0 in float32, and 0 * log 0 stays 0, not NaN."""

CACHE_BYTES = 2**30
"""At most this much memory for the keys and values of one batch; on CUDA half of what is free, if that is more."""

PREFILLED = {"cpu": 2**31}
"""Most tokens of prompts that are computed at once, by device type."""
PREFILLED_ELSEWHERE = 32768

LOOK = {"cpu": 1}
"""After how many steps it is asked which rows have ended, by device type: an accelerator must wait to answer. What a
row writes after its end is thrown away."""
LOOK_ELSEWHERE = 8


@dataclass(frozen=True)
class Sampler:
    """How one token is taken from the logits. ``top_k`` and ``top_p`` change the distribution: for evaluation only."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __call__(self, logits: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens, int64 [n], and their log-probabilities under the processed distribution, float32 [n].

        Args:
            logits: float32 [n, V], not yet divided by the temperature; overwritten.
            uniform: float64 [n] in (0, 1).
        """
        if self.temperature == 0:
            return logits.argmax(-1), logits.new_zeros(len(logits))
        weights = logits.sub_(logits.amax(-1, keepdim=True)).div_(self.temperature).exp_()
        if self.top_k is None and self.top_p >= 1:
            token, total = invert(weights, uniform)
            chosen = weights.gather(1, token[:, None])[:, 0]
        else:
            weights, candidates = nucleus(weights, self.top_k, self.top_p)
            place, total = invert(weights, uniform)
            chosen = weights.gather(1, place[:, None])[:, 0]
            token = candidates.gather(1, place[:, None])[:, 0]
        return token, (chosen.double() / total).log().float()


SCANNED = 1024
"""Up to this many weights the cumulative sum is computed whole."""


def invert(weights: torch.Tensor, uniform: torch.Tensor, block: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """The first place where the cumulative weight exceeds ``uniform`` times the total, int64 [n], and the total [n].

    Cumulative sums are float64. The place's block of ``block`` weights is found first, so most of a large vocabulary is
    summed and never scanned. A place of weight 0 is never taken.
    """
    n, size = weights.shape
    if size <= SCANNED:
        cumulative = weights.cumsum(-1, dtype=torch.float64)
        total = cumulative[:, -1]
        target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0], total
    if size % block:
        weights = torch.nn.functional.pad(weights, (0, block - size % block))
    blocks = weights.view(n, -1, block)
    sums = blocks.sum(-1).cumsum(-1, dtype=torch.float64)
    total = sums[:, -1].clone()
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))[:, None]
    which = torch.searchsorted(sums, target, right=True)
    before = torch.where(which > 0, sums.gather(1, (which - 1).clamp_(min=0)), 0.0)
    inside = blocks.gather(1, which[..., None].expand(-1, -1, block))[:, 0].cumsum(-1, dtype=torch.float64)
    # The two ways of summing a block differ in the last digits; never run past its last positive weight.
    rest = torch.minimum(target - before, torch.nextafter(inside[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(inside, rest, right=True)
    return (which * block + place)[:, 0], total


def nucleus(weights: torch.Tensor, top_k: int | None, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``top_k`` largest weights, and of these the fewest that hold ``top_p`` of their sum; the rest 0.

    Returns:
        weights, largest first, [n, m], and their places in the vocabulary [n, m].
    """
    size = weights.shape[-1]
    k = min(top_k or size, size)
    whole = weights.sum(-1, dtype=torch.float64) if k == size else None
    m = k if top_p >= 1 or whole is None else min(256, size)
    while True:
        largest, places = weights.topk(m, dim=-1)
        cumulative = largest.cumsum(-1, dtype=torch.float64)
        total = cumulative[:, -1] if whole is None else whole
        if m >= k or bool((cumulative[:, -1] >= top_p * total).all()):
            break
        m = min(4 * m, size)
    if top_p < 1:
        largest = largest * (cumulative - largest < top_p * total[:, None])
    return largest, places


class Decoder(Protocol):
    """A language model that writes one token at a time to a batch of rows, keeping keys and values."""

    bytes_per_token: int
    """memory of one place of one row"""

    def start(self, prompts: Sequence[Tokens], prompt_of: NDArray[np.int64], limit: int) -> torch.Tensor:
        """Prefill distinct prompts; row i continues ``prompts[prompt_of[i]]`` by at most ``limit`` tokens. Returns
        the logits of the first token, float32 [n, V]."""

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append int64 [n] tokens, one a row, and return the logits of the next, float32 [n, V]."""

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only, in this order; int64 positions among the current rows."""


def write(decoder: Decoder, request: Request, rows_at_once: int, device: torch.device) -> Written:
    """The responses that are asked for, at most ``rows_at_once`` together.

    Raises:
        UserError: out of memory.
    """
    prompts, prompt_ids, limits = request.prompts, request.prompt_ids, request.limits
    sampler = Sampler(request.temperature, request.top_k, request.top_p)
    n = len(prompts)
    length = np.array([len(p) for p in prompts], dtype=np.int64)
    out = Written([np.zeros(0, np.int32)] * n, [np.zeros(0, np.float32)] * n, [""] * n)
    order = np.lexsort((prompt_ids, length))
    end_tokens = torch.tensor(sorted(request.ends), device=device)
    start, room_for_cache = 0, max(CACHE_BYTES, (memory.free(device) or 0) // 2)
    while start < n:
        ahead = order[start : start + rows_at_once]
        room = (length[ahead] + np.maximum.accumulate(limits[ahead])) * decoder.bytes_per_token
        fit = np.flatnonzero(room * np.arange(1, len(ahead) + 1) <= room_for_cache)
        rows = ahead[: max(1, len(fit))]
        start += len(rows)
        uniform = rng.uniform(
            request.seed,
            request.purpose,
            prompt_ids[rows, None],
            request.occurrences[rows, None],
            np.arange(limits[rows].max(), dtype=np.uint64),
        )
        draws = torch.from_numpy(np.ascontiguousarray(uniform.T)).to(device)
        with memory.explained(f"sampling of {len(rows)} responses at once", "lower rows_at_once"):
            _write_batch(decoder, sampler, prompts, rows, limits, draws, end_tokens, out, request.progress)
    return out


def _write_batch(
    decoder: Decoder,
    sampler: Sampler,
    prompts: Sequence[Tokens],
    rows: NDArray[np.int64],
    limits: NDArray[np.int64],
    draws: torch.Tensor,
    ends: torch.Tensor,
    out: Written,
    progress: Callable[[int], None] | None,
) -> None:
    distinct: dict[int, int] = {}
    prompt_of = np.array([distinct.setdefault(id(prompts[r]), len(distinct)) for r in rows], dtype=np.int64)
    _, first = np.unique(prompt_of, return_index=True)
    device = draws.device
    limit = torch.from_numpy(limits[rows]).to(device)
    shortest, steps = int(limits[rows].min()), int(limits[rows].max())
    logits = decoder.start([prompts[rows[i]] for i in first], prompt_of, steps)
    is_end = torch.zeros(logits.shape[1], dtype=torch.bool, device=device)
    is_end[ends] = True
    current = torch.arange(len(rows), device=device)  # the row of the batch that each row of the decoder is
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    stopped = torch.zeros(len(rows), dtype=torch.bool, device=device)
    ended, look = torch.zeros_like(stopped), LOOK.get(device.type, LOOK_ELSEWHERE)  # of the decoder's rows, unseen yet
    for step in range(steps):
        token, log_probability = sampler(logits, draws[step][current])
        over = is_end[token]
        if look > 1:
            stopped[current] = stopped[current] | (over & ~ended)
            history.append((torch.where(ended, -1, current), token, log_probability))
            ended = over = over | ended | (limit[current] <= step + 1)
            number = int(over.sum()) if (step + 1) % look == 0 or step + 1 == steps else 0
        else:
            history.append((current, token, log_probability))
            if number := int(over.sum()):
                stopped[current[over]] = True
            if step + 1 >= shortest:
                over = over | (limit[current] <= step + 1)
                number = int(over.sum())
        if number:
            if progress:
                progress(number)
            if number == len(current):
                break
            keep = _fill_holes(over, len(current) - number)
            decoder.keep(keep)
            current, token = current[keep], token[keep]
            ended = torch.zeros_like(current, dtype=torch.bool)
        logits = decoder.step(token)
    _collect(history, stopped, rows, out)


def _collect(
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    stopped: torch.Tensor,
    rows: NDArray[np.int64],
    out: Written,
) -> None:
    """Sort what was written, step by step, into the rows; a row of -1 is of one that had ended."""
    row, token, chosen = (torch.cat(column).cpu().numpy() for column in zip(*history, strict=True))
    row, token, chosen = row[row >= 0], token[row >= 0], chosen[row >= 0]
    order = np.argsort(row, kind="stable")
    cuts = np.bincount(row, minlength=len(rows)).cumsum()[:-1]
    tokens = np.split(token[order].astype(np.int32), cuts)
    log_probabilities = np.split(chosen[order], cuts)
    for place, *one in zip(rows, tokens, log_probabilities, stopped.tolist(), strict=True):
        out.tokens[place], out.log_probabilities[place] = one[0].copy(), one[1].copy()
        out.finish_reason[place] = "stop" if one[2] else "length"


def _fill_holes(done: torch.Tensor, left: int) -> torch.Tensor:
    """The rows that go on, int64 [left]: each stays where it is, or moves from the end into an ended row's place."""
    keep = torch.arange(left, device=done.device)
    keep[done[:left]] = torch.nonzero(~done[left:])[:, 0] + left
    return keep


class TransformersDecoder:
    """Any causal language model of transformers, through its own cache. Prompts are padded on the left."""

    def __init__(self, model: Any, forbidden: torch.Tensor, autocast: Callable[[], Any]) -> None:
        self.model, self.forbidden, self.autocast = model, forbidden, autocast
        config = model.config.get_text_config()
        self.last: int = (getattr(config, "max_position_embeddings", None) or 2**62) - 1
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kind = forbidden.device.type
        with autocast():
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
        self.bytes_per_token = 2 * config.num_hidden_layers * heads * width * dtype.itemsize

    def start(self, prompts: Sequence[Tokens], prompt_of: NDArray[np.int64], limit: int) -> torch.Tensor:  # noqa: ARG002
        device = self.forbidden.device
        width = max(len(p) for p in prompts)
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        mask = np.zeros((len(prompts), width), dtype=np.int64)
        for line, prompt in enumerate(prompts):
            ids[line, width - len(prompt) :] = prompt
            mask[line, width - len(prompt) :] = 1
        self.mask = torch.from_numpy(mask).to(device)
        self.position = self.mask.sum(-1, keepdim=True)
        with self.autocast():
            answer = self.model(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=self.mask,
                position_ids=(self.mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache = answer.past_key_values
        repeated = torch.from_numpy(prompt_of).to(device)
        self.keep(repeated)
        return self._logits(answer.logits)[repeated]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        with self.autocast():
            answer = self.model(
                input_ids=tokens[:, None],
                attention_mask=self.mask,
                position_ids=self.position,
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache = answer.past_key_values
        # A row that has ended, which is not always seen at once, may be at the end of the context: it goes no further.
        self.position = (self.position + 1).clamp_(max=self.last)
        return self._logits(answer.logits)

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def _logits(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].float().index_fill(1, self.forbidden, NEVER)
