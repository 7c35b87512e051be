"""Preference models that are fitted to annotated pairs: the common loop, and embeddings of responses.

    L = -[p log P(y_1 > y_2) + (1 - p) log P(y_2 > y_1)],   mean over pairs

for any model that gives the log-odds of a pair (``farm.roles.protocols.PreferenceModel``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, ErrorRate, NotNegative, Share
from farm.base.errors import UserError
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies import read_descriptor, write_descriptor
from farm.policies.body import Body
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning, Policy, Samples
from reference_methods.parts.batches import Batch, micro_batches, tokens_at_once, total_lengths
from reference_methods.parts.checkpoints import log_once
from reference_methods.parts.losses import bradley_terry
from reference_methods.parts.preferences import Preferences, agreement
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


class Fitted(Protocol):
    """A preference model with parameters."""

    def logits(self, first: Samples, second: Samples) -> Tensor: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True, kw_only=True)
class PreferenceFit(Offline):
    """Settings and loop of every fitted preference model. Models inherit them and say where they start."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    epochs: Count = 2
    batch_size: Count = 32
    learning_rate: NotNegative = 1e-5
    label_smoothing: ErrorRate = 0.0
    """the share of labels assumed to be flipped"""
    context: str | None = None
    """a column of the pairs whose text is put before the prompt, as of a reward model"""
    held_out_share: Share = 0.05
    """share of the pairs that is not trained on, for the accuracy logged at the end; 0 for none"""

    def begin(self, policy: Policy, seed: int) -> Fitted:
        """The model before it has seen a pair, on a copy of the policy's body."""
        raise NotImplementedError

    def fit(self, model: Fitted, learning: Learning) -> None:
        """Fit ``model`` in place to ``learning.preferences``."""
        purpose = type(self).__name__
        everything = Preferences.read(learning, self.context)
        pairs, held_out = everything.hold_out(self.held_out_share, learning.seed, f"{purpose}/held out")
        if not len(pairs):
            raise UserError(f"{purpose}: held_out_share {self.held_out_share} leaves no pair to train on")

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            logits = model.logits(pairs.first.select(batch.rows), pairs.second.select(batch.rows))
            label = pairs.labels(batch.rows, logits)
            losses = bradley_terry(logits, label, self.label_smoothing)
            return batch.mean(losses), {"accuracy": batch.mean(agreement(logits, label))}

        with Trainer(self, learning, purpose, [(model, self.learning_rate)]) as trainer:
            for batch in trainer.batches(pairs.training_rows()):
                trainer.update(batch, loss)
        decided = held_out.p_first != 0.5
        if np.any(decided):
            with torch.no_grad():
                tokens = tokens_at_once(self.micro_batch_tokens, model, training=False)
                parts = micro_batches(np.arange(len(held_out)), held_out.lengths(), tokens)
                logits = torch.zeros(len(held_out))
                for rows in parts:
                    part = held_out.select(rows)
                    logits[torch.from_numpy(rows)] = model.logits(part.first, part.second).float().cpu()
            right = agreement(logits, torch.from_numpy(held_out.p_first))[torch.from_numpy(decided)]
            accuracy, count = float(right.mean()), float(decided.sum())
            log_once(learning.log, {"step": trainer.step, "held_out_accuracy": accuracy, "held_out_pairs": count})


# --- embeddings -------------------------------------------------------------------------------------------------------


EMBEDDINGS = "embeddings.safetensors"


class Embedder(Protocol):
    """A vector for each response, float [B, d] with gradient."""

    def __call__(self, samples: Samples) -> Tensor: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def save(self, folder: Path) -> None: ...


def embedder(policy: Policy, size: int, seed: int) -> Embedder:
    """New embeddings of ``size`` numbers for the responses of a policy, on a copy of its body.

    Raises:
        UserError: for a policy that is neither a table nor a transformers model.
    """
    if isinstance(policy, TabularPolicy):
        return TabularEmbedder.new(policy, size, seed)
    body, tokenizer = getattr(policy, "body", None), getattr(policy, "tokenizer", None)
    if body is None:
        raise UserError(f"a {type(policy).__name__} has no hidden states to embed responses with")
    return LanguageModelEmbedder.new(body, tokenizer, size, seed)


def load_embedder(folder: Path) -> Embedder:
    """The embeddings that were saved in a folder, of either kind."""
    in_table = str(read_descriptor(folder)["class"]).startswith("Tabular")
    return TabularEmbedder.load(folder) if in_table else LanguageModelEmbedder.load(folder)


class TabularEmbedder:
    """A free vector for each response to each prompt, [S, K, d]."""

    def __init__(self, policy: TabularPolicy, table: Tensor) -> None:
        self.policy, self.table = policy, torch.nn.Parameter(table)

    @classmethod
    def new(cls, policy: TabularPolicy, size: int, seed: int) -> TabularEmbedder:
        shape = (*policy.logits.shape, size)
        draws = rng.normal(seed, "embeddings", np.arange(np.prod(shape), dtype=np.uint64)).reshape(shape)
        return cls(policy, torch.from_numpy(draws).to(policy.logits.dtype))

    def __call__(self, samples: Samples) -> Tensor:
        states, actions = (place[:, 0] for place in self.policy.rows.where(samples))
        return self.table[states, actions]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.table

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        self.policy.save(folder)
        save_file({"embeddings": self.table.detach().contiguous()}, folder / EMBEDDINGS)

    @classmethod
    def load(cls, folder: Path) -> TabularEmbedder:
        from safetensors.torch import load_file

        return cls(TabularPolicy.load(folder), load_file(folder / EMBEDDINGS)["embeddings"])


class LanguageModelEmbedder:
    """A linear map of the last token's hidden state, float32."""

    def __init__(self, body: Any, tokenizer: Any, weight: Tensor) -> None:
        self.body, self.tokenizer = body, tokenizer
        self.weight = torch.nn.Parameter(weight.float().to(body.device))

    @classmethod
    def new(cls, body: Any, tokenizer: Any, size: int, seed: int) -> LanguageModelEmbedder:
        draws = rng.normal(seed, "embedding head", np.arange(size * body.width, dtype=np.uint64))
        weight = torch.from_numpy(draws).float().view(size, body.width) / (body.width + 1) ** 0.5
        return cls(body.copy(), tokenizer, weight)

    def __call__(self, samples: Samples) -> Tensor:
        last = total_lengths(samples) - 1
        states = self.body.hidden(samples, last, np.ones_like(last))
        return torch.nn.functional.linear(states.float(), self.weight)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield from self.body.parameters(with_head=False)
        yield self.weight

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        settings = {"train_layers": self.body.train_layers, "compute_dtype": self.body.compute_dtype}
        write_descriptor(folder, LanguageModelEmbedder, settings)
        save_causal_lm(self.body.model, self.tokenizer, folder)
        save_file({"weight": self.weight.detach().cpu()}, folder / EMBEDDINGS)

    @classmethod
    def load(cls, folder: Path) -> LanguageModelEmbedder:
        from safetensors.torch import load_file

        settings = read_descriptor(folder)
        model, tokenizer = load_causal_lm(str(folder), dtype="auto")
        body = Body(model, settings["train_layers"], settings["compute_dtype"])
        return cls(body, tokenizer, load_file(folder / EMBEDDINGS)["weight"])
