"""A model of the Hugging Face hub, or a local folder, in this process, through transformers.

Batched, left-padded, with the model's own chat template. Log-probabilities of labels come from the same forward pass
as the first token. Temperature 0 is greedy; otherwise each request samples with a seed of its own, so its answer does
not depend on who else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from annotators.llm.backends.batcher import Batcher, turns
from annotators.llm.completion import Completion, Request
from farm.base import rng
from farm.base.errors import need


class TransformersModel:
    """One model, loaded once."""

    concurrency = 16

    def __init__(self, name: str, _: str | None = None) -> None:
        try:
            import torch
        except ImportError as error:
            raise need("models", "torch", f"model transformers/{name}") from error
        from farm.hardware.models import load_causal_lm
        from farm.policies.conversation import special_tokens

        self._torch, self._name = torch, name
        self._model, self._tokenizer = load_causal_lm(name, "bfloat16")
        self._special = special_tokens(self._tokenizer)
        self._batcher = Batcher(self._answer, self.concurrency)

    async def complete(self, request: Request) -> Completion:
        return await self._batcher.complete(request)

    async def close(self) -> None:
        return None

    def _answer(self, requests: Sequence[Request]) -> list[Completion]:
        torch = self._torch
        prompts = [self._ids(request) for request in requests]
        width = max(map(len, prompts))
        padding = self._tokenizer.pad_token_id or 0
        device = self._model.device
        tokens = torch.tensor([[padding] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        ends = self._ends()
        said: list[list[int]] = [[] for _ in requests]
        open_ = [True] * len(requests)
        labels: list[dict[str, float] | None] = [None] * len(requests)
        draws = [self._generator(request) for request in requests]
        past = None
        step_tokens = tokens
        with torch.inference_mode():
            for step in range(max(r.max_tokens for r in requests)):
                places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -step_tokens.shape[1] :]
                out = self._model(
                    step_tokens, attention_mask=mask, position_ids=places, past_key_values=past,
                    use_cache=True, logits_to_keep=1,
                )  # fmt: skip
                past = out.past_key_values
                scores = out.logits[:, -1].float()
                if step == 0:
                    labels = [self._labels(s, r) if r.labels else None for s, r in zip(scores, requests, strict=True)]
                chosen = [self._choose(s, r, d) for s, r, d in zip(scores, requests, draws, strict=True)]
                for i, token in enumerate(chosen):
                    if open_[i]:
                        said[i].append(token)
                        open_[i] = token not in ends and len(said[i]) < requests[i].max_tokens
                if not any(open_):
                    break
                step_tokens = torch.tensor(chosen, device=device)[:, None]
                mask = torch.cat([mask, mask.new_ones(len(requests), 1)], dim=1)
        return [
            Completion(
                text=self._tokenizer.decode(tokens_said, skip_special_tokens=True),
                labels=label,
                mass=None if label is None else sum(map(math.exp, label.values())),
                input_tokens=len(asked),
                output_tokens=len(tokens_said),
                finish="stop" if tokens_said[-1] in ends else "length",
                model=self._name,
            )
            for tokens_said, label, asked in zip(said, labels, prompts, strict=True)
        ]

    def _ids(self, request: Request) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            turns(request, self._special), tokenize=False, add_generation_prompt=True
        )
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends(self) -> set[int]:
        known = [self._tokenizer.eos_token_id, getattr(self._model.generation_config, "eos_token_id", None)]
        return {int(i) for k in known if k is not None for i in (k if isinstance(k, list) else [k])}

    def _labels(self, scores: Any, request: Request) -> dict[str, float]:
        logs = self._torch.log_softmax(scores, -1)
        out = {}
        for label in request.labels:  # "1" and " 1" are two tokens that say the same
            ways = {ids[0] for form in (label, f" {label}") if len(ids := self._encode(form)) == 1}
            where = sorted(ways) or [self._encode(label)[0]]
            out[label] = float(self._torch.logsumexp(logs[where], 0))
        return out

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generator(self, request: Request) -> Any:
        seed = rng.torch_seed(request.seed, "answer", rng.text_id(request.user), request.replicate)
        return self._torch.Generator(device=self._model.device).manual_seed(seed)

    def _choose(self, scores: Any, request: Request, draw: Any) -> int:
        if not request.temperature and request.temperature is not None:
            return int(scores.argmax())
        heat = 1.0 if request.temperature is None else request.temperature
        return int(self._torch.multinomial(self._torch.softmax(scores / heat, -1), 1, generator=draw))
