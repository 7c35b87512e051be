"""A decoder for models of the Llama architecture, a sixth to a fifth faster than the general one.

The same arithmetic as transformers' LlamaForCausalLM, one token at a time: projections fused, keys and values in one
preallocated block, rows dropped in place. Prompts are padded on the right; the gap this leaves between a prompt and
its response is masked, and positions are counted without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention, silu

from farm.engines.sampling import NEVER, PREFILLED, PREFILLED_ELSEWHERE
from farm.hardware import adapters
from farm.roles.protocols import Tokens

Numbers = NDArray[np.int64]

STATIC_ROPE = ("default", "linear", "llama3")

PACKED_FROM = 1 << 18
"""numbers of a weight from which on oneDNN is faster, in blocks of its own: what the cache of a core does not hold"""
PACKED_FOR = 64
"""rows for which oneDNN chooses its blocks; it chooses the same for 8 to 512"""
_pack: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None) if torch._C._has_mkldnn else None
"""private to torch; where a build lacks it, weights are stored as before"""


def is_plain_llama(model: Any) -> bool:
    """Whether :class:`LlamaDecoder` computes what this model computes: plain linear layers and a fixed rotary table."""
    if type(model).__name__ != "LlamaForCausalLM":
        return False
    config = model.config
    rope = (getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}).get("rope_type")
    return (
        rope in (None, *STATIC_ROPE)
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and all(_is_plain(m) for name, m in model.named_modules() if name.endswith("_proj"))
    )


def _is_plain(linear: Any) -> bool:
    """A linear layer, perhaps with adapters, which are merged at construction."""
    if hasattr(linear, "lora_A"):
        linear = linear.base_layer
    return type(linear) is torch.nn.Linear


@dataclass(frozen=True)
class _Layer:
    query_key_value: torch.Tensor
    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x times a weight as it was stored."""
    if weight.is_mkldnn:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return product
    return torch.nn.functional.linear(x, weight)


def _added(x: torch.Tensor, inner: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x + W inner: one launch on an accelerator, which is what a step of one token a row waits for."""
    if x.device.type == "cpu" or x.dim() > 2:
        return x + linear(inner, weight)
    return torch.addmm(x, inner, weight.t())


class LlamaDecoder:
    """See :class:`farm.engines.sampling.Decoder`. The weights are read at construction, in ``dtype`` or their own."""

    def __init__(self, model: Any, forbidden: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        self.forbidden = forbidden
        config = model.config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_width: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        self.rotary = model.model.rotary_emb
        self.dtype: torch.dtype = dtype or model.lm_head.weight.dtype

        def after(norm: torch.nn.Parameter, *weights: torch.Tensor) -> torch.Tensor:
            # The gain of the norm before a projection is a factor of its columns: one multiplication less a step.
            return self._stored(torch.cat([w.detach() for w in weights]).float() * norm.detach().float())

        self.layers = []
        for layer in model.model.layers:
            attention, feed_forward = layer.self_attn, layer.mlp
            self.layers.append(
                _Layer(
                    after(
                        layer.input_layernorm.weight,
                        adapters.weight(attention.q_proj) * self.head_width**-0.5,
                        adapters.weight(attention.k_proj),
                        adapters.weight(attention.v_proj),
                    ),
                    self._stored(adapters.weight(attention.o_proj)),
                    after(
                        layer.post_attention_layernorm.weight,
                        adapters.weight(feed_forward.gate_proj),
                        adapters.weight(feed_forward.up_proj),
                    ),
                    self._stored(adapters.weight(feed_forward.down_proj)),
                )
            )
        self.embedding = model.model.embed_tokens.weight.detach().to(self.dtype)
        self.head = after(model.model.norm.weight, model.lm_head.weight)
        self.bytes_per_token = 2 * len(self.layers) * self.key_heads * self.head_width * self.dtype.itemsize

    def _stored(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight as it is multiplied with. A processor multiplies a few rows up to twice as fast with large weights
        in oneDNN's blocks, and in 32 bits with small ones that are stored input by input."""
        weight = weight.detach().to(self.dtype)
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
            return weight
        if _pack is not None and weight.numel() >= PACKED_FROM:
            packed: torch.Tensor = _pack(weight.contiguous(), PACKED_FOR)
            return packed
        return weight.t().contiguous().t() if weight.dtype == torch.float32 else weight

    def start(self, prompts: Sequence[Tokens], prompt_of: NDArray[np.int64], limit: int) -> torch.Tensor:
        device = self.forbidden.device
        lengths = np.array([len(p) for p in prompts])
        width = int(lengths.max())
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        for line, prompt in enumerate(prompts):
            ids[line, : len(prompt)] = prompt
        repeat = torch.from_numpy(prompt_of).to(device)
        length = torch.from_numpy(lengths).to(device)
        table = self.rotary(self.embedding, torch.arange(width + limit, device=device)[None])
        # rotate_half(x) * sin is roll(x) * (sin with its first half negated)
        self.cosine, self.sine = table[0][0], table[1][0].clone()
        self.sine[:, : self.head_width // 2].neg_()
        block = (len(self.layers), len(prompt_of), self.key_heads)
        self.keys = torch.empty(*block, self.head_width, width + limit, dtype=self.dtype, device=device)
        self.values = torch.empty(*block, width + limit, self.head_width, dtype=self.dtype, device=device)

        each = max(1, PREFILLED.get(device.type, PREFILLED_ELSEWHERE) // width)
        starts = range(0, len(prompts), each)
        last = torch.cat([self._prefill(ids[i : i + each], lengths[i : i + each], prompt_of - i) for i in starts])

        self.rows, self.used = len(prompt_of), width
        self.position = length[repeat]
        gap = torch.arange(width + limit, device=device)[None] >= length[:, None]
        gap[:, width:] = False
        mask = torch.zeros(gap.shape, dtype=self.dtype, device=device).masked_fill_(gap, float("-inf"))
        self.mask = mask[repeat][:, None, None] if bool(gap.any()) else None
        return self._logits(last)[repeat]

    def _prefill(self, ids: Numbers, lengths: Numbers, prompt_of: Numbers) -> torch.Tensor:
        """Compute n prompts and keep their keys and values for the rows that continue them, which are those whose
        ``prompt_of`` is from 0 to n - 1. Returns the states of their last tokens, [n, h]."""
        device, width = self.forbidden.device, ids.shape[1]
        ours = np.flatnonzero((prompt_of >= 0) & (prompt_of < len(ids)))
        repeat = torch.from_numpy(prompt_of[ours]).to(device)
        rows: Any = slice(None) if len(ours) == len(prompt_of) else torch.from_numpy(ours).to(device)
        x = embedding(torch.from_numpy(ids).to(device), self.embedding)
        cosine, sine = self.cosine[:width, None], self.sine[:width, None]
        for number, layer in enumerate(self.layers):
            query, key, value = self._project(layer, x, cosine, sine)
            self.keys[number, ..., :width][rows] = key.permute(0, 2, 3, 1)[repeat]
            self.values[number, :, :, :width][rows] = value.transpose(1, 2)[repeat]
            shape = {"is_causal": True, "enable_gqa": self.heads != self.key_heads, "scale": 1.0}
            query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
            x = self._feed_forward(layer, x, scaled_dot_product_attention(query, key, value, **shape).transpose(1, 2))
        return x[torch.arange(len(ids), device=device), torch.from_numpy(lengths - 1).to(device)]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        column = self.used
        self.used += 1
        mask = None if self.mask is None else self.mask[: self.rows, ..., : self.used]
        logits = self.next(tokens, self.position, mask, column, self.used)
        self.position = self.position + 1
        return logits

    def next(
        self, tokens: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None, column: Any, columns: int
    ) -> torch.Tensor:
        """The logits after these tokens of the first n rows, float32 [n, V].

        Args:
            tokens, position: int64 [n].
            mask: what is added to the attention scores, [n, 1, 1, columns]; None for nothing.
            column: of the cache, where the tokens' keys and values are written; a number, or int64 [1].
            columns: so many of the cache are attended to.
        """
        rows = len(tokens)
        x = embedding(tokens, self.embedding)
        cosine, sine = self.cosine[position][:, None], self.sine[position][:, None]
        queries = (rows * self.key_heads, self.heads // self.key_heads, self.head_width)
        if mask is not None:
            mask = mask.expand(-1, self.key_heads, -1, -1).flatten(0, 1)
        for number, layer in enumerate(self.layers):
            query, key, value = self._project(layer, x, cosine, sine)
            if isinstance(column, int):
                self.keys[number, :rows, :, :, column] = key
                self.values[number, :rows, :, column] = value
            else:
                self.keys[number, :rows].index_copy_(3, column, key[..., None])
                self.values[number, :rows].index_copy_(2, column, value[:, :, None])
            keys = self.keys[number, :rows, :, :, :columns].flatten(0, 1)
            values = self.values[number, :rows, :, :columns].flatten(0, 1)
            query = query.reshape(queries)
            scores = torch.bmm(query, keys) if mask is None else torch.baddbmm(mask, query, keys)
            x = self._feed_forward(layer, x, torch.bmm(scores.softmax(-1), values))
        return self._logits(x)

    def keep(self, rows: torch.Tensor) -> None:
        moved = torch.nonzero(rows != torch.arange(len(rows), device=rows.device))[:, 0]
        source = rows[moved]
        self.keys[:, moved, ..., : self.used] = self.keys[:, source, ..., : self.used]
        self.values[:, moved, :, : self.used] = self.values[:, source, :, : self.used]
        if self.mask is not None:
            self.mask[moved] = self.mask[source]
        self.position = self.position[rows]
        self.rows = len(rows)

    def _project(
        self, layer: _Layer, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        joined = linear(self._normalised(x), layer.query_key_value)
        heads = joined.view(*x.shape[:-1], -1, self.head_width)
        turning, value = heads[..., : -self.key_heads, :], heads[..., -self.key_heads :, :]
        turned = torch.addcmul(turning * cosine, turning.roll(self.head_width // 2, -1), sine)
        return turned[..., : self.heads, :], turned[..., self.heads :, :], value

    def _feed_forward(self, layer: _Layer, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        x = _added(x, mixed.reshape(*x.shape[:-1], -1), layer.output)
        gate, up = linear(self._normalised(x), layer.gate_up).chunk(2, -1)
        return _added(x, silu(gate) * up, layer.down)

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, x.shape[-1:], None, self.epsilon)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits = linear(self._normalised(x), self.head).float()
        return logits.index_fill_(1, self.forbidden, NEVER) if len(self.forbidden) else logits
