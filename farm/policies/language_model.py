"""A policy that is a transformers causal language model.

Log-probabilities are float32, of the response's tokens alone, at the sampling temperature in every place
(CORRECTNESS: dividing in one place and not in another is the classic mistake); the end of sequence is a token like any
other. Texts become tokens once, in :mod:`farm.policies.conversation`; what was sampled is trained on as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from farm import rng
from farm.models import load_causal_lm, save_causal_lm
from farm.policies import read_descriptor, write_descriptor
from farm.policies.batches import check_lengths, response_ids, response_mask, unflatten
from farm.policies.body import COMPUTE, Body
from farm.policies.conversation import Conversation
from farm.policies.llama import LlamaDecoder, is_plain_llama
from farm.policies.sampling import NEVER, Decoder, Sampler, TransformersDecoder, write
from farm.policies.tabular import occurrences
from farm.protocols import Samples

Head = Literal["last", "last+sum"]

LOGITS_AT_ONCE = 2**26
"""Logits beyond this number are not kept for the backward pass but computed a second time."""


class LanguageModelPolicy:
    """Any transformers causal language model as a policy.

    Args:
        model: the model, in evaluation mode from now on; used as it is, not copied.
        tokenizer: its tokenizer. A chat template it has is applied to the whole conversation.
        template: a plain text with ``{prompt}`` in it, instead of the chat template or the default instruction format.
        extra_eos: further tokens (ids or texts such as ``<|im_end|>``) that end a response.
        control_texts: what may stand at the start of a prompt as more than data, such as a quantile token; see
            :class:`farm.policies.conversation.Conversation`.
        forbidden_tokens: ids that are never sampled and have no part in any normaliser.
        max_new_tokens: the limit of a response, end of sequence included.
        top_k, top_p: cut the distribution that is *sampled from*, for evaluation. The log-probabilities of such
            samples are those of the cut distribution, so their ratios to ``log_probabilities`` are not 1.
        train_layers: only the last so many layers train; None trains everything.
        compute_dtype: "bfloat16" computes in it while the weights stay as they are.
        scorer_head: what :meth:`scorer` reads, see :class:`farm.policies.scorer.LanguageModelScorer`.
        rows_at_once: the most rows sampled together.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        extra_eos: Sequence[int | str] = (),
        control_texts: Sequence[str] = (),
        forbidden_tokens: Sequence[int] = (),
        max_new_tokens: int = 256,
        top_k: int | None = None,
        top_p: float = 1.0,
        train_layers: int | None = None,
        compute_dtype: str | None = None,
        scorer_head: Head = "last",
        rows_at_once: int = 512,
    ) -> None:
        if max_new_tokens < 1 or rows_at_once < 1 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
            raise ValueError("max_new_tokens, rows_at_once and top_k must be at least 1, and top_p in (0, 1]")
        self.settings: dict[str, Any] = {
            "template": template,
            "extra_eos": list(extra_eos),
            "control_texts": list(control_texts),
            "forbidden_tokens": [int(t) for t in forbidden_tokens],
            "max_new_tokens": max_new_tokens,
            "top_k": top_k,
            "top_p": top_p,
            "train_layers": train_layers,
            "compute_dtype": compute_dtype,
            "scorer_head": scorer_head,
            "rows_at_once": rows_at_once,
        }
        self.body = Body(model, train_layers, compute_dtype)
        self.tokenizer = tokenizer
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        self.conversation = Conversation(tokenizer, template, extra_eos, ends, control_texts)
        self.forbidden = torch.tensor(self.settings["forbidden_tokens"], dtype=torch.int64, device=self.body.device)
        if self.conversation.ends & set(self.settings["forbidden_tokens"]):
            raise ValueError("an end-of-sequence token cannot be forbidden")

    @property
    def model(self) -> Any:
        """The transformers model itself."""
        return self.body.model

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """As :meth:`farm.protocols.Policy.sample`. Temperature 0 is greedy, with log-probabilities 0.

        Raises:
            UserError: for a prompt that leaves no room in the model's context.
        """
        if temperature < 0:
            raise ValueError("the temperature must not be negative")
        tokens = self.conversation.prompts(prompts)
        lengths = np.array([len(t) for t in tokens], dtype=np.int64)
        limits = np.full(len(tokens), max_new_tokens or self.settings["max_new_tokens"], dtype=np.int64)
        if self.body.context is not None:
            check_lengths(lengths + 1, self.body.context, prompts, "a prompt with room for one token")
            limits = np.minimum(limits, self.body.context - lengths)
        with torch.inference_mode():
            written = write(
                self._decoder(),
                Sampler(temperature, self.settings["top_k"], self.settings["top_p"]),
                tokens,
                rng.text_ids(prompts),
                occurrences(prompts),
                limits,
                self.conversation.ends,
                seed,
                purpose,
                self.settings["rows_at_once"],
                self.body.device,
                progress,
            )
        return Samples(
            prompts=list(prompts),
            outputs=self.conversation.texts(written.tokens),
            prompt_tokens=tokens,
            response_tokens=list(written.tokens),
            log_probabilities=list(written.log_probabilities),
            finish_reason=written.finish_reason,
        )

    def _decoder(self) -> Decoder:
        if is_plain_llama(self.model):
            return LlamaDecoder(self.model, self.forbidden, COMPUTE.get(self.body.compute_dtype or ""))
        return TransformersDecoder(self.model, self.forbidden, self.body.autocast)

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`farm.protocols.Policy.log_probabilities`.

        Raises:
            UserError: for a row longer than the model's context.
        """
        _positive(temperature)
        states = self.body.before_head(samples)
        targets = response_ids(samples, self.body.device)
        mask = response_mask(samples.lengths(), self.body.device)

        def chosen(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = self._logits(states, temperature)
            return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")

        rows = max(1, LOGITS_AT_ONCE // self.body.vocabulary)
        if len(targets) <= rows:
            return unflatten(chosen(states, targets), mask), mask
        cuts = range(0, len(targets), rows)
        parts = [checkpoint(chosen, states[i : i + rows], targets[i : i + rows], use_reentrant=False) for i in cuts]
        return unflatten(torch.cat(parts), mask), mask

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`farm.protocols.Policy.distributions`; a forbidden token has a log-probability of about -1e4."""
        _positive(temperature)
        logits = self._logits(self.body.before_head(samples), temperature)
        mask = response_mask(samples.lengths(), self.body.device)
        return unflatten(torch.log_softmax(logits, dim=-1), mask), mask

    def _logits(self, states: torch.Tensor, temperature: float) -> torch.Tensor:
        logits = self.body.project(states)
        if len(self.forbidden):
            logits = logits.index_fill(1, self.forbidden, NEVER)
        return logits if temperature == 1 else logits / temperature

    def encode(self, prompts: Sequence[str], outputs: Sequence[str]) -> Samples:
        """As :meth:`farm.protocols.Policy.encode`; an empty output is the end of sequence alone."""
        return Samples(
            prompts=list(prompts),
            outputs=list(outputs),
            prompt_tokens=self.conversation.prompts(prompts),
            response_tokens=(tokens := self.conversation.responses(prompts, outputs)),
            log_probabilities=[np.zeros(len(t), np.float32) for t in tokens],
            finish_reason=["stop"] * len(tokens),
        )

    def scorer(self, seed: int, head: Head | None = None) -> Any:
        """A :class:`farm.policies.scorer.LanguageModelScorer` on a copy of the body, its head drawn from ``seed``."""
        from farm.policies.scorer import LanguageModelScorer

        return LanguageModelScorer.new(self.body, self.tokenizer, head or self.settings["scorer_head"], seed)

    def copy(self) -> LanguageModelPolicy:
        """A policy with a model of its own; what trains in it is again as the settings say."""
        return self.with_settings()

    def with_settings(self, **changed: Any) -> LanguageModelPolicy:
        """A copy with some settings changed, for example ``with_settings(top_p=0.9)``."""
        model = copy.deepcopy(self.model) if "train_layers" in changed else self.body.copy_model()
        return LanguageModelPolicy(model, self.tokenizer, **{**self.settings, **changed})

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.body.parameters(with_head=True)

    def save(self, folder: Path) -> None:
        """Model, config and tokenizer in Hugging Face format, and the settings beside them."""
        write_descriptor(folder, LanguageModelPolicy, self.settings)
        save_causal_lm(self.model, self.tokenizer, folder)

    @classmethod
    def load(cls, folder: Path) -> LanguageModelPolicy:
        settings = read_descriptor(folder)
        del settings["class"]
        model, tokenizer = load_causal_lm(str(folder), dtype="auto")
        return cls(model, tokenizer, **settings)


def _positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError("log-probabilities need a positive temperature")
