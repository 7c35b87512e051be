"""The geometric mixture of two language models, token by token: the opponent of Nash-MD.

    log pi'(v | x, y_<t) = (1 - share) logits_policy(v) + share logits_reference(v) + c

Both models read the same text, and the mixture of their logits is sampled. Of whole responses this is not quite the
geometric mixture, whose next token would depend on what can follow; it is the usual approximation (arXiv 2312.00886).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from farm.engines.sampling import Decoder
from farm.policies.batches import of_sampled
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Samples, Tokens


class MixturePolicy(LanguageModelPolicy):
    """A policy that samples from the mixture of two language models with one tokenizer, as they are now."""

    def __init__(self, policy: LanguageModelPolicy, reference: LanguageModelPolicy, share: float) -> None:
        if policy.model.config.get_text_config().vocab_size != reference.model.config.get_text_config().vocab_size:
            raise ValueError("a mixture of next-token logits takes two models with the same vocabulary")
        self.settings, self.conversation, self.forbidden = policy.settings, policy.conversation, policy.forbidden
        self.body, self.tokenizer = policy.body, policy.tokenizer
        self.parts, self.share = (policy, reference), share

    def decoder(self) -> Decoder:
        policy, reference = (part.decoder() for part in self.parts)
        return MixtureDecoder(policy, reference, self.share)

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixture's log-probabilities of every token, as :meth:`farm.roles.protocols.Policy.distributions`."""
        (first, mask), (second, _) = (part.distributions(samples) for part in self.parts)
        logits = (1 - self.share) * first + self.share * second
        return torch.where(mask[..., None], torch.log_softmax(logits / temperature, -1), 0.0), mask

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        whole, mask = self.distributions(samples, temperature)
        return of_sampled(whole, samples, mask), mask


@dataclass
class MixtureDecoder:
    """Two decoders in step, their logits mixed."""

    policy: Decoder
    reference: Decoder
    share: float

    def __post_init__(self) -> None:
        self.bytes_per_token = self.policy.bytes_per_token + self.reference.bytes_per_token

    def start(self, prompts: Sequence[Tokens], prompt_of: NDArray[np.int64], limit: int) -> torch.Tensor:
        return self._mixed(
            self.policy.start(prompts, prompt_of, limit), self.reference.start(prompts, prompt_of, limit)
        )

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._mixed(self.policy.step(tokens), self.reference.step(tokens))

    def keep(self, rows: torch.Tensor) -> None:
        self.policy.keep(rows)
        self.reference.keep(rows)

    def _mixed(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (1 - self.share) * first + self.share * second
